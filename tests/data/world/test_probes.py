"""Yes/no probes: true, balanced, and absent objects chosen as their split says."""

import pytest

from vla_jax.data.world import SPLITS, EvaluationWorld, WorldConfig, mentioned_categories
from vla_jax.data.world.categories import CATEGORY
from vla_jax.data.world.scenes import categories_by_frequency

WORLD = EvaluationWorld(WorldConfig(probes_per_split=4), 300)


def asked(probe) -> str:
    (name,) = mentioned_categories(probe.question)
    return name


def test_answers_are_true():
    for index in range(len(WORLD)):
        names = WORLD.scene(index).names
        assert all(probe.answer == (asked(probe) in names) for probe in WORLD.probes(index))


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_asks_as_often_for_present_as_for_absent_objects(split):
    for index in range(len(WORLD)):
        probes = [probe for probe in WORLD.probes(index) if probe.split == split]
        assert [probe.answer for probe in probes].count(True) == 2
        assert len({asked(probe) for probe in probes}) == len(probes) == 4


def test_adversarial_objects_are_partners_while_there_are_any():
    for index in range(len(WORLD)):
        names = WORLD.scene(index).names
        partners = {CATEGORY[name].partner for name in names} - set(names)
        absent = {asked(p) for p in WORLD.probes(index) if p.split == "adversarial" and not p.answer}
        assert len(absent & partners) == min(2, len(partners))


def test_popular_objects_are_frequent_in_biased_scenes():
    frequent = categories_by_frequency(WORLD.config)[: 8 + WORLD.config.max_objects]
    for index in range(len(WORLD)):
        absent = {asked(p) for p in WORLD.probes(index) if p.split == "popular" and not p.answer}
        assert absent <= set(frequent)
