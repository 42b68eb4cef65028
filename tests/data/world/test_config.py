"""A config that makes no world is refused with the field and the reason."""

from dataclasses import FrozenInstanceError

import pytest

from vla_jax.data.world import WorldConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("image_size", 8),
        ("cooccurrence", 1.2),
        ("prior_mentions", -0.1),
        ("min_objects", 1),
        ("max_objects", 2),
        ("max_objects", 9),
        ("max_anchors", 0),
        ("popularity_exponent", -1.0),
        ("min_visible", 0.95),
        ("max_sentences", 0),
        ("questions_per_record", 20),
        ("swap_fraction", 2.0),
        ("probes_per_split", 3),
        ("probes_per_split", 6),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"WorldConfig.{field}"):
        WorldConfig(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("seed", 1.5), ("duplicates", "often"), ("max_objects", True)])
def test_values_of_the_wrong_type_are_refused_by_name(field, value):
    # TypeError: where a runtime checker of annotations comes before the config's own check.
    with pytest.raises((ValueError, TypeError), match=field):
        WorldConfig(**{field: value})


def test_added_objects_need_a_second_sentence():
    with pytest.raises(ValueError, match="swap_fraction"):
        WorldConfig(max_sentences=1)
    assert WorldConfig(max_sentences=1, swap_fraction=1.0).max_sentences == 1


def test_a_config_is_a_frozen_value():
    assert WorldConfig() == WorldConfig() and hash(WorldConfig()) == hash(WorldConfig())
    with pytest.raises(FrozenInstanceError):
        WorldConfig().seed = 1
