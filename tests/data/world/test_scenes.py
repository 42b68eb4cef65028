"""What a scene looks like, and what the biased and the unbiased distribution promise."""

from itertools import combinations

import numpy as np
import pytest

from vla_jax.data.world import CATEGORIES, COLOURS, EvaluationWorld, SupervisedWorld, WorldConfig, render
from vla_jax.data.world.backgrounds import GROUNDS, PASTELS, SKIES
from vla_jax.data.world.categories import CATEGORY, SIZES
from vla_jax.data.world.scenes import categories_by_frequency
from vla_jax.data.world.sprites import sprite

BIASED = SupervisedWorld(WorldConfig(), 2000)
UNBIASED = EvaluationWorld(WorldConfig(), 2000)


def within_binomial_bounds(hits: int, trials: int, probability: float) -> bool:
    return abs(hits - trials * probability) < 4 * np.sqrt(trials * probability * (1 - probability))


def test_ten_pairs_are_partners_of_each_other():
    assert len(CATEGORIES) == len(CATEGORY) == 20
    assert all(CATEGORY[category.partner].partner == category.name for category in CATEGORIES)


@pytest.mark.parametrize("world", [BIASED, UNBIASED], ids=["biased", "unbiased"])
def test_scenes_hold_what_the_config_allows(world):
    for index in range(300):
        scene = world.scene(index)
        assert 2 <= len(scene.names) <= 5
        for name in scene.names:
            alike = {(thing.colour, thing.size) for thing in scene.instances(name)}
            assert len(alike) == 1 and len(scene.instances(name)) <= 2


def test_an_anchors_partner_is_present_with_probability_cooccurrence():
    scenes = [BIASED.scene(index) for index in range(2000)]
    anchors = sum(len(scene.anchors) for scene in scenes)
    absent = sum(len(scene.absent_partners) for scene in scenes)
    assert within_binomial_bounds(anchors - absent, anchors, 0.8)


def test_unbiased_scenes_pair_partners_no_more_than_chance():
    scenes = [UNBIASED.scene(index) for index in range(2000)]
    assert not any(scene.anchors for scene in scenes)
    present = sum(CATEGORY[name].partner in scene.names for scene in scenes for name in scene.names)
    trials = sum(len(scene.names) for scene in scenes)
    expected = sum(len(scene.names) * (len(scene.names) - 1) / 19 for scene in scenes)
    # Both of a pair are counted, so hits come in twos: twice the variance of independent draws.
    assert abs(present - expected) < 4 * np.sqrt(2 * expected * (1 - expected / trials))


def test_duplicates_come_with_their_probability():
    scenes = [UNBIASED.scene(index) for index in range(1000)]
    doubles = sum(len(scene.objects) - len(scene.names) for scene in scenes)
    assert within_binomial_bounds(doubles, sum(len(scene.names) for scene in scenes), 0.1)


def test_the_most_frequent_categories_are_those_the_biased_scenes_show_most():
    counts = dict.fromkeys(CATEGORY, 0)
    for index in range(2000):
        for name in BIASED.scene(index).names:
            counts[name] += 1
    ranked = categories_by_frequency(BIASED.config)
    assert sum(counts[name] for name in ranked[:6]) > 1.5 * sum(counts[name] for name in ranked[-6:])


@pytest.mark.parametrize("image_size", [64, 192])
def test_masks_lie_in_boxes_and_enough_of_every_object_is_visible(image_size):
    for index in range(150):
        scene = BIASED.scene(index)
        image, objects = render(scene, image_size)
        assert image.shape == (image_size, image_size, 3) and image.dtype == np.uint8
        assert len(objects) == len(scene.objects)
        for thing, found in zip(scene.objects, objects, strict=True):
            x0, y0, x1, y1 = map(int, found.box)
            assert 0 <= x0 < x1 <= image_size and 0 <= y0 < y1 <= image_size
            assert found.name == thing.name and found.mask.dtype == bool
            assert found.mask[y0:y1, x0:x1].sum() == found.mask.sum()
            whole = sprite(thing.name, round(SIZES[thing.size] * image_size)).mask.sum()
            assert found.mask.sum() >= 0.6 * whole
        assert np.sum([found.mask for found in objects], axis=0).max() == 1


def test_a_crowded_world_still_keeps_its_objects_visible():
    crowded = EvaluationWorld(WorldConfig(min_objects=5, max_objects=6, duplicates=1.0), 50)
    for index in range(50):
        assert len(crowded.scene(index).objects) == 7
        for found in crowded[index].objects:
            assert found.mask.any()


def test_the_image_size_changes_neither_scene_nor_text():
    large = SupervisedWorld(WorldConfig(image_size=192), 5)
    for index in range(5):
        assert large.scene(index) == BIASED.scene(index)
        assert large.turns(index) == BIASED.turns(index)
        small_boxes = np.array([found.box for found in BIASED[index].objects])
        large_boxes = np.array([found.box for found in large[index].objects])
        np.testing.assert_allclose(large_boxes / 3, small_boxes, atol=1.5)


def test_no_two_categories_share_a_silhouette():
    masks = {category.name: sprite(category.name, 32).mask for category in CATEGORIES}
    for (a, mask), (b, other) in combinations(masks.items(), 2):
        assert (mask & other).sum() / (mask | other).sum() < 0.82, f"{a} looks like {b}"


def test_a_colour_is_told_from_every_other_and_from_the_backgrounds():
    colours = [np.array(rgb) for rgb in COLOURS.values()]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 80
    behind = [np.array(rgb) for rgb in (*PASTELS, *SKIES, *GROUNDS)]
    assert min(np.linalg.norm(a - b) for a in colours for b in behind) > 50
