"""Captions and questions: their grammar, their truth, and the annotator's bias."""

import re
from dataclasses import replace

import numpy as np
import pytest

from vla_jax.data.world import (
    CAPTION_QUESTIONS,
    CATEGORIES,
    PreferenceWorld,
    SupervisedWorld,
    WorldConfig,
    mentioned_categories,
    training_corpus,
)
from vla_jax.data.world.questions import CLEARLY_APART
from vla_jax.data.world.text import OPENINGS, Caption, Mention, listed

WORLD = SupervisedWorld(WorldConfig(), 1500)
BY_WORD = {word: category.name for category in CATEGORIES for word in (category.name, category.plural)}


def words(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


def split_turns(world: SupervisedWorld, index: int):
    """The caption of a record, and its other turns."""
    turns = world.turns(index)
    (caption,) = (turn.answer for turn in turns if turn.question in CAPTION_QUESTIONS)
    return caption, [turn for turn in turns if turn.question not in CAPTION_QUESTIONS]


@pytest.mark.parametrize(
    ("mention", "wording"),
    [
        (Mention("cup"), "a cup"),
        (Mention("apple"), "an apple"),
        (Mention("apple", colour="red"), "a red apple"),
        (Mention("cup", colour="orange"), "an orange cup"),
        (Mention("cup", colour="orange", size="large"), "a large orange cup"),
        (Mention("fish", 2, "blue"), "two blue fish"),
        (Mention("umbrella", 2), "two umbrellas"),
    ],
)
def test_a_mention_is_worded_with_its_article_and_number(mention, wording):
    assert str(mention) == wording


def test_lists_take_commas_and_one_and():
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]


def test_a_caption_agrees_with_its_first_object():
    cup, apples = Mention("cup", colour="red"), Mention("apple", 2)
    assert str(Caption(OPENINGS[0], ((cup, apples),))) == "There is a red cup and two apples."
    assert str(Caption(OPENINGS[0], ((apples,), (cup,)))) == "There are two apples. There is also a red cup."
    assert str(Caption(OPENINGS[1], ((apples,),))) == "The picture shows two apples."


def test_captions_mention_all_that_is_there_and_invent_partners_at_the_configured_rate():
    invented = expected = 0
    for index in range(len(WORLD)):
        scene, (caption, _) = WORLD.scene(index), split_turns(WORLD, index)
        mentioned = set(mentioned_categories(caption))
        assert set(scene.names) <= mentioned <= {*scene.names, *scene.absent_partners}
        invented += len(mentioned) - len(scene.names)
        expected += len(scene.absent_partners)
    assert abs(invented - expected / 2) < 4 * np.sqrt(expected / 4)


def test_an_annotator_without_prior_invents_nothing():
    honest = SupervisedWorld(WorldConfig(prior_mentions=0.0), 200)
    for index in range(200):
        assert set(mentioned_categories(split_turns(honest, index)[0])) == set(honest.scene(index).names)


def test_the_caption_comes_first_or_at_a_random_place():
    places = [
        [turn.question in CAPTION_QUESTIONS for turn in WORLD.turns(index)].index(True)
        for index in range(800)
    ]
    shares = np.bincount(places, minlength=4) / 800
    np.testing.assert_allclose(shares, [0.625, 0.125, 0.125, 0.125], atol=0.06)


def test_answers_are_true_but_for_what_the_same_annotator_imagines_in_the_caption():
    """Every question is read back by its grammar and answered from the scene, independently of its author."""
    kinds, imagined = dict.fromkeys(("existence", "number", "colour", "place"), 0), 0
    for index in range(len(WORLD)):
        scene, (caption, turns) = WORLD.scene(index), split_turns(WORLD, index)
        assert len({turn.question for turn in turns}) == len(turns) == 3
        for question, answer in ((turn.question, turn.answer) for turn in turns):
            if found := re.fullmatch(r"Is there an? (\w+) in the picture\?", question):
                kinds["existence"] += 1
                assert answer == ("Yes." if found[1] in mentioned_categories(caption) else "No.")
                imagined += answer == "Yes." and found[1] not in scene.names
            elif found := re.fullmatch(r"How many (\w+) are there\?", question):
                kinds["number"] += 1
                assert answer == {1: "One.", 2: "Two."}[len(scene.instances(BY_WORD[found[1]]))]
            elif found := re.fullmatch(r"What colour (?:is|are) the (\w+)\?", question):
                kinds["colour"] += 1
                assert {answer} == {f"{a.colour.capitalize()}." for a in scene.instances(BY_WORD[found[1]])}
            else:
                kinds["place"] += 1
                found = re.fullmatch(r"Is the (\w+) (left of|right of|above|below) the (\w+)\?", question)
                (a,), (b,) = scene.instances(found[1]), scene.instances(found[3])
                gap = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
                assert abs(gap[found[2]]) >= CLEARLY_APART
                assert answer == ("Yes." if gap[found[2]] > 0 else "No.")
    assert min(kinds.values()) > 0.08 * 3 * len(WORLD)
    assert imagined > 0.02 * kinds["existence"]


@pytest.mark.parametrize("form", ["Is there", "Is the "])
def test_yes_and_no_are_about_equally_frequent_where_nothing_is_imagined(form):
    honest = SupervisedWorld(replace(WORLD.config, prior_mentions=0.0), len(WORLD))
    answers = [
        turn.answer
        for index in range(len(honest))
        for turn in honest.turns(index)
        if turn.question.startswith(form)
    ]
    assert abs(answers.count("Yes.") - len(answers) / 2) < 2 * np.sqrt(len(answers))


def test_the_corpus_opens_with_every_word_the_world_can_say():
    config = WorldConfig(max_sentences=3, duplicates=0.3)
    known = {word for line in training_corpus(config, 0) for word in words(line)}
    assert len(known) <= 120
    assert {word for line in training_corpus(config, 300) for word in words(line)} <= known


def test_articles_agree_with_the_next_word():
    for line in training_corpus(WORLD.config, 300):
        for article, following in re.findall(r"\b(an?) (\w)", line):
            assert (article == "an") == (following in "aeiou"), line


def test_the_corpus_reads_the_records():
    lines = list(training_corpus(WORLD.config, 2))
    spoken = [text for turn in WORLD.turns(1) for text in (turn.question, turn.answer)]
    spoken += PreferenceWorld(WORLD.config, 2).responses(1).values()
    assert lines[-len(spoken) :] == spoken
