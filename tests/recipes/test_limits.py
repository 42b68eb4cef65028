"""Numbers among the options are refused where they could not be meant, before anything is loaded."""

import math

import pytest

from vla_jax.recipes import available, default_options, named
from vla_jax.recipes.limits import LIMITS

NUMBERS = sorted(
    (recipe, option)
    for recipe in available()
    for option, value in default_options(recipe).items()
    if isinstance(value, int | float) and not isinstance(value, bool)
)


def test_every_number_of_every_recipe_has_limits_and_no_others_are_named():
    options = {option for _, option in NUMBERS}
    assert {name.rpartition(".")[2] for name in LIMITS} == options
    assert {name for name in LIMITS if "." in name} <= {".".join(number) for number in NUMBERS}


@pytest.mark.parametrize("recipe, option", NUMBERS, ids=".".join)
def test_defaults_are_within_and_nan_is_not(recipe, option):
    named(recipe, default_options(recipe))
    with pytest.raises(ValueError, match=f"options.{recipe}.{option} is nan; it must be "):
        named(recipe, {option: math.nan})


@pytest.mark.parametrize(
    "recipe, option, value, limits",
    [
        ("bdhs", "tries", 0, "at least 1"),
        ("bdhs", "threshold", 1.5, "at least 0 and at most 1"),
        ("bdhs", "noise_step", 5000, "at least 0 and at most 1000"),
        ("bdhs", "sentence_tokens", 0, "at least 1"),
        ("bdhs", "temperature", -1.0, "at least 0"),
        ("dpo", "beta", -0.1, "at least 0"),
        ("dpo", "label_smoothing", 2.0, "at least 0 and at most 0.5"),
        ("lpoi", "num_views", 1, "at least 2"),
        ("lpoi", "anchor_delta", math.inf, "finite"),
        ("mixed_dpo", "probability", 7, "at least 0 and at most 1"),
        ("ppo", "gamma", 3, "at least 0 and at most 1"),
        ("rloo", "clip_low", -0.2, "at least 0"),
        ("rloo", "samples", 1, "at least 2"),
        ("rloo", "temperature", 0, "above 0"),
        ("best_of_n", "temperature", 0, "above 0"),
    ],
)
def test_what_cannot_be_meant_is_told(recipe, option, value, limits):
    with pytest.raises(ValueError) as refused:
        named(recipe, {option: value})
    assert str(refused.value) == f"options.{recipe}.{option} is {value}; it must be {limits}"


@pytest.mark.parametrize(
    "recipe, option, value", [("ppo", "temperature", 0), ("rloo", "beta", 0), ("bdhs", "threshold", 1)]
)
def test_the_ends_can_be_meant(recipe, option, value):
    named(recipe, {option: value})
