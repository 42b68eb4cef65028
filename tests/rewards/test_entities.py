"""Words that name objects: what the set holds, and which tokens of a response they are."""

from importlib import resources

import pytest

from vla_jax.data.tokenizer import train_tokenizer
from vla_jax.rewards.entities import Entities, plain_name, token_ends
from vla_jax.rewards.wordnet import WordNet

TEXTS = ("There are two cups and a stop sign.", "A fire hydrant, and more cups.")


@pytest.fixture(scope="module")
def tokenizer():
    """Knows the first text nearly by heart and spells out everything else."""
    return train_tokenizer(TEXTS[:1] * 3, 300)


@pytest.fixture(scope="module")
def shipped():
    return Entities.shipped()


@pytest.mark.parametrize(
    "label, name",
    [
        ("stop_sign", "stop sign"),
        ("bat_(animal)", "bat"),
        ("monitor_(computer_equipment) computer_monitor", "monitor computer monitor"),
        ("Band_Aid", "band aid"),
    ],
)
def test_labels_are_read_as_one_would_say_them(label, name):
    assert plain_name(label) == name


def test_the_shipped_set_holds_coco_lvis_and_their_synonyms(shipped):
    assert len(shipped.names) == 1214
    assert {"hot dog", "aerosol can"} <= set(shipped.names)
    assert {"pocketbook", "handbags", "purses", "aeroplane"} <= shipped.spellings
    assert "lead" not in shipped.words.names  # a verb: of a meeting's chair
    assert "lead" in Entities.shipped("all").words.names
    assert not {"wetback", "greaser"} & Entities.shipped("all").spellings


def test_the_names_are_those_that_tfds_has():
    shipped = resources.files("vla_jax.rewards.entity_lists").joinpath("lvis.txt").read_text()
    theirs = resources.files("tensorflow_datasets").joinpath("datasets/lvis/classes.txt").read_text()
    assert shipped.split("\n") == [*theirs.split("\n"), ""]


def test_a_choice_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="synonyms='verbs' is not one of none, nouns, all"):
        Entities.shipped("verbs")


def test_any_list_is_read(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("# mine\ncup, mug\n\nstop_sign\n")
    assert Entities.read(file).words.names == ("cup", "stop sign", "mug")


@pytest.mark.parametrize(
    "text, words", [(TEXTS[0], ["cups", "stop sign"]), (TEXTS[1], ["fire hydrant", "cups"])]
)
def test_a_words_tokens_are_those_that_hold_its_letters(tokenizer, text, words):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = Entities.from_names(["cup", "sign", "stop sign", "fire hydrant"]).tokens(tokenizer, ids)
    assert [entity.word for entity in found] == words
    for word, first, last in found:
        held = tokenizer.decode(ids[first : last + 1])
        assert word in held and word not in tokenizer.decode(ids[first:last])
        assert word not in tokenizer.decode(ids[first + 1 : last + 1])


class ByteByByte:
    """Decodes as a tokenizer with a token for every byte: of an unfinished character, one sign for each."""

    def decode(self, ids, **_):
        done = bytes(ids).decode(errors="ignore")
        return done + "\ufffd" * (len(ids) - len(done.encode()))


@pytest.mark.parametrize("text", ["🐱 cup", "🐱cup", "a cup 🐱🐱 cup"])
def test_words_after_a_character_of_several_tokens_are_located(text):
    ids = list(text.encode())
    found = Entities.from_names(["cup"]).tokens(ByteByByte(), ids)
    assert len(found) == text.count("cup")
    for word, first, last in found:
        assert bytes(ids[first : last + 1]).decode() == word == "cup"


def test_special_tokens_give_no_letters(tokenizer):
    ids = [*tokenizer("two cups", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert token_ends(tokenizer, ids)[-2:] == [8, 8]


def test_wordnets_files_are_read(tmp_path):
    """Two senses of "taco": a dish, and one that is marked as a slur."""
    head = "  1 a licence\n"
    slur = "00000014 10 n 01 ethnic_slur 0 000 | an offensive word\n"
    dish, insult = len(head) + len(slur), 0
    data = head + slur
    data += f"{dish:08d} 13 n 02 taco 0 folded_tortilla 0 001 @ 00000014 n 0000 | a dish\n"
    insult = len(data)
    data += f"{insult:08d} 18 n 02 taco 0 rude_word 0 001 ;u 00000014 n 0000 | (ethnic slur)\n"
    for part in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text(data if part == "noun" else head)
        (tmp_path / f"index.{part}").write_text(head)
    index = f"taco n 2 1 @ 2 0 {dish:08d} {insult:08d}  \n"
    (tmp_path / "index.noun").write_text(head + index)
    assert WordNet(tmp_path).synonyms("Taco", "noun") == ("folded tortilla",)
    assert WordNet(tmp_path).synonyms("taco", "verb") == ()
