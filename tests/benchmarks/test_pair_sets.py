"""The sets of pairs differ in what their name says and in nothing else."""

import re

import pytest

from benchmarks.pair_sets import SETS
from vla_jax.data.schema import CHOSEN, REJECTED
from vla_jax.data.world import COLOURS, mentioned_categories
from vla_jax.train import load_config

PLACES = range(100, 116)
# What asks a model is tried by the campaign.
DRAWN = [name for name in SETS if name != "own answer"]


@pytest.fixture(scope="module")
def sets(request):
    config = load_config(request.config.rootpath / "configs/world_reward_model.py")
    return {name: SETS[name](config, PLACES) for name in DRAWN}


@pytest.mark.parametrize("name", DRAWN)
def test_a_set_has_a_record_a_place_and_two_different_answers(sets, name):
    records = [sets[name][i] for i in range(len(sets[name]))]
    assert len(records) == len({record.key for record in records}) == len(PLACES)
    assert all(record.responses[CHOSEN] != record.responses[REJECTED] for record in records)


def test_another_colour_is_all_that_is_wrong(sets):
    for i in range(len(PLACES)):
        responses = sets["wrong colour"][i].responses
        chosen, rejected = (re.findall(r"\w+", responses[role]) for role in (CHOSEN, REJECTED))
        differ = [pair for pair in zip(chosen, rejected, strict=True) if pair[0] != pair[1]]
        # "an orange cup" is "a red cup".
        assert [pair for pair in differ if set(pair) != {"a", "an"}] == [differ[-1]]
        assert set(differ[-1]) <= set(COLOURS)


def test_an_added_noun_is_there_beside_all_the_others(sets):
    for i in range(len(PLACES)):
        responses = sets["added noun"][i].responses
        chosen, rejected = (set(mentioned_categories(responses[role])) for role in (CHOSEN, REJECTED))
        assert chosen < rejected and len(rejected - chosen) == 1


def test_questions_are_answered_with_yes_and_no(sets):
    answers = {frozenset(sets["yes/no"][i].responses.values()) for i in range(len(PLACES))}
    assert answers == {frozenset({"Yes.", "No."})}
