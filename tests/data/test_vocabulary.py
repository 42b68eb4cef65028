"""Which objects a text names, and where: plurals, compounds, synonyms, spans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_jax.data.vocabulary import Mention, Vocabulary

COCO = Vocabulary.coco()


def names(text: str, vocabulary: Vocabulary = COCO) -> list[str]:
    return [mention.name for mention in vocabulary.mentions(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man rides a bike past two buses.", ["person", "bicycle", "bus"]),
        ("Two women, three children and policemen.", ["person", "person", "person"]),
        ("A CAT; the cat's bowl: cats!", ["cat", "cat", "bowl", "cat"]),
        ("Knives, forks, wine glasses and a dining table.", ["knife", "fork", "wine glass", "dining table"]),
        ("A pair of skis beside a bus.", ["skis", "bus"]),
        ("Scissors, sheep and geese.", ["scissors", "sheep", "bird"]),
        ("A hot dog is no dog.", ["hot dog", "dog"]),
        ("Traffic lights and stop signs.", ["traffic light", "stop sign"]),
        ("A fire, hydrant apart.", ["fire hydrant"]),
        ("Nothing of note: glass, category, carpet, busy.", []),
        ("", []),
    ],
)
def test_names_in_reading_order(text, expected):
    assert names(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A baby elephant with adult elephants.", ["elephant", "elephant"]),
        ("A baby with an elephant.", ["person", "elephant"]),
        ("A baby animal and an adult cub.", ["bear"]),
        ("Passenger jets above a passenger train.", ["airplane", "train"]),
        ("A bow tie.", ["tie"]),
        ("The toilet seat is up.", ["toilet"]),
        ("A toilet whose seat is up, no chair.", ["toilet", "chair"]),
        ("A seat.", ["chair"]),
        ("At home plate beside the train tracks.", []),
    ],
)
def test_compounds_of_chair(text, expected):
    assert names(text) == expected


def test_compounds_hide_names_that_a_small_vocabulary_has_without_them():
    assert names("A hot dog, a teddy bear, a dog.", Vocabulary.from_names(["dog", "bear"])) == ["dog"]


def test_spans_point_at_the_words():
    text = "İki Wine  Glasses beside a man's dog."
    assert COCO.mentions(text)[0] == Mention("wine glass", 4, 17)
    assert [text[m.start : m.end] for m in COCO.mentions(text)] == ["Wine  Glasses", "man", "dog"]


@given(st.lists(st.sampled_from([*sorted(COCO.name_of), "a", ",", ".", "'s", "\n", "beside"])))
def test_spans_are_ordered_disjoint_and_known(words):
    text = " ".join(words)
    end_of_last = 0
    for mention in COCO.mentions(text):
        assert end_of_last <= mention.start < mention.end <= len(text)
        assert mention.name in COCO.names
        end_of_last = mention.end


@given(st.text())
def test_any_text_can_be_read(text):
    COCO.mentions(text)


@pytest.mark.parametrize("name", COCO.names)
def test_every_coco_category_is_found_in_a_sentence(name):
    assert names(f"There is a {name} here.") == [name]


def test_coco_has_its_80_categories():
    assert len(COCO.names) == 80


def test_canonical_takes_synonyms_and_refuses_strangers():
    assert COCO.canonical("Sofa") == COCO.canonical("couch") == "couch"
    with pytest.raises(ValueError, match="'unicorn' is not among the 80 objects"):
        COCO.canonical("unicorn")


def test_a_spelling_stands_for_one_object():
    with pytest.raises(ValueError, match="'bow' stands for 'tie' and for 'weapon'"):
        Vocabulary.from_synonym_lines(["tie, bow", "weapon, bow"])


def test_underscores_of_a_data_set_are_blanks():
    assert names("A potted plant.", Vocabulary.from_names(["potted_plant"])) == ["potted plant"]


def test_a_name_has_letters():
    with pytest.raises(ValueError, match="without a letter"):
        Vocabulary.from_names(["dog", "?!"])


def test_a_vocabulary_has_names():
    with pytest.raises(ValueError, match="no names"):
        Vocabulary.from_synonym_lines(["# only a comment", ""])
