"""The worlds as data sources: random access, determinism, no shared scenes, no jax."""

import pickle
import subprocess
import sys

import grain
import pytest

from vla_jax.data.world import EvaluationWorld, PreferenceWorld, SupervisedWorld, WorldConfig

WORLDS = [SupervisedWorld, PreferenceWorld, EvaluationWorld]


@pytest.mark.parametrize("world", WORLDS)
def test_a_record_follows_from_its_index_alone(world):
    forwards = [pickle.dumps(world(WorldConfig(), 20)[index]) for index in range(20)]
    backwards = world(WorldConfig(), 1000)
    assert forwards[::-1] == [pickle.dumps(backwards[index]) for index in reversed(range(20))]


@pytest.mark.parametrize("world", WORLDS)
def test_a_record_shows_its_scene(world):
    source = world(WorldConfig(), 3)
    assert [found.name for found in source[2].objects] == [thing.name for thing in source.scene(2).objects]


def test_worlds_and_seeds_share_no_scene():
    scenes = [
        world(WorldConfig(seed=seed), 200).scene(index)
        for world in WORLDS
        for seed in (0, 1)
        for index in range(200)
    ]
    assert len({hash(scene.objects) for scene in scenes}) == len(scenes)


@pytest.mark.parametrize("world", WORLDS)
def test_indices_outside_are_errors_and_iteration_ends(world):
    source = world(WorldConfig(), 3)
    for index in (3, -1):
        with pytest.raises(IndexError, match="3 records"):
            source[index]
    assert len(list(source)) == len(source) == 3
    with pytest.raises(ValueError, match="size"):
        world(WorldConfig(), -1)


@pytest.mark.parametrize("world", WORLDS)
def test_grain_reads_a_world_in_shuffled_order(world):
    source = world(WorldConfig(), 12)
    keys = [record.key for record in grain.MapDataset.source(source).shuffle(seed=0)]
    assert sorted(keys) == sorted(source[index].key for index in range(12))


def test_a_supervised_record_is_a_conversation_about_the_image():
    source = SupervisedWorld(WorldConfig(questions_per_record=2), 5)
    record, turns = source[4], source.turns(4)
    assert record.key == "world/supervised/seed0/4"
    assert (record.question, record.responses) == (turns[0].question, {"chosen": turns[0].answer})
    assert record.further_turns == turns[1:] and len(turns) == 3


def test_evaluation_always_asks_in_the_same_words():
    source = EvaluationWorld(WorldConfig(), 20)
    assert {source[index].question for index in range(20)} == {"What is in the picture?"}


def test_the_world_imports_no_jax():
    # grain, which the batches above the world need, imports jax where there is one; the world must not.
    code = "import sys, grain; sys.modules['jax'] = None; import vla_jax.data.world"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
