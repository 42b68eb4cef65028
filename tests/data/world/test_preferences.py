"""A preference pair differs in one hallucination and in nothing a model could use instead."""

import re
from dataclasses import replace

import numpy as np
import pytest

from vla_jax.data.world import PreferenceWorld, WorldConfig, mentioned_categories

WORLD = PreferenceWorld(WorldConfig(), 500)
PAIRS = [WORLD.preference(index) for index in range(500)]


def test_chosen_is_true_and_rejected_has_exactly_one_hallucination():
    for pair in PAIRS:
        chosen, rejected = (set(mentioned_categories(str(c))) for c in (pair.chosen, pair.rejected))
        assert chosen == set(pair.scene.names)
        assert rejected - chosen == {pair.hallucinated}
        assert pair.hallucinated in pair.scene.absent_partners
        assert len(chosen - rejected) <= 1


def test_every_adjective_of_a_present_object_is_true_in_both():
    for pair in PAIRS:
        for mention in (*pair.chosen.mentions, *pair.rejected.mentions):
            for thing in pair.scene.instances(mention.name):
                assert mention.count == len(pair.scene.instances(mention.name))
                assert mention.colour in (None, thing.colour) and mention.size in (None, thing.size)


def test_both_captions_have_as_many_words_sentences_and_punctuation_marks():
    for pair in PAIRS:
        chosen, rejected = str(pair.chosen), str(pair.rejected)
        assert len(chosen.split()) == len(rejected.split())
        assert re.findall("[.,]", chosen) == re.findall("[.,]", rejected)


def test_a_swap_changes_one_mention_and_keeps_its_adjectives():
    for pair in PAIRS:
        if len(pair.chosen.mentions) == len(pair.rejected.mentions):
            mentions = zip(pair.chosen.mentions, pair.rejected.mentions, strict=True)
            (change,) = [(old, new) for old, new in mentions if old != new]
            assert replace(change[0], name=pair.hallucinated) == change[1]


@pytest.mark.parametrize("swap_fraction", [0.0, 0.5, 1.0])
def test_the_share_of_swaps_is_the_configured_one(swap_fraction):
    world = PreferenceWorld(WorldConfig(swap_fraction=swap_fraction), 200)
    pairs = [world.preference(index) for index in range(200)]
    swaps = sum(len(pair.chosen.mentions) == len(pair.rejected.mentions) for pair in pairs)
    assert abs(swaps / 200 - swap_fraction) <= 4 * np.sqrt(swap_fraction * (1 - swap_fraction) / 200)


def test_flipping_exchanges_the_labels_of_a_random_half_and_nothing_else():
    flipping = PreferenceWorld(WORLD.config, 500, flip_labels=True)
    flipped = 0
    for index in range(500):
        straight, perhaps = WORLD.responses(index), flipping.responses(index)
        assert sorted(straight.values()) == sorted(perhaps.values())
        flipped += straight["chosen"] != perhaps["chosen"]
    assert 200 < flipped < 300
    np.testing.assert_array_equal(WORLD[3].image, flipping[3].image)


def test_a_record_carries_both_captions_and_the_objects():
    record = WORLD[7]
    assert record.key == "world/preference/seed0/7"
    assert set(record.responses) == {"chosen", "rejected"}
    assert [found.name for found in record.objects] == [thing.name for thing in WORLD.scene(7).objects]


def test_a_world_without_absent_partners_is_refused():
    with pytest.raises(ValueError, match="cooccurrence"):
        PreferenceWorld(WorldConfig(cooccurrence=1.0), 10)


def test_questions_take_their_share_and_are_answered_truly_in_words_of_equal_number():
    config = replace(WorldConfig(), preference_questions=0.4)
    world = PreferenceWorld(config, 300)
    asked = [index for index in range(300) if world.preference(index).asked]
    assert 90 < len(asked) < 150
    for index in asked:
        record = world[index]
        name = re.fullmatch(r"Is there an? (\w+) in the picture\?", record.question)[1]
        names = {thing.name for thing in record.objects}
        assert record.responses["chosen"] == ("Yes." if name in names else "No.")
        assert {record.responses["chosen"], record.responses["rejected"]} == {"Yes.", "No."}
        assert name in (*names, world.preference(index).hallucinated)
    answers = [world[index].responses["chosen"] for index in asked]
    assert 0.35 < answers.count("Yes.") / len(answers) < 0.65
