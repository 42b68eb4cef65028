"""The layouts' bars for a 7B."""

import pytest

from benchmarks.flops import ranked_responses, rounded, step_flops, usual_flops
from vla_jax.models import LlavaConfig
from vla_jax.recipes import named

TERA = 1e12


@pytest.mark.parametrize(
    "recipe, prefix, answer, most",
    [
        (named("dpo"), 636, 150, 40),
        (named("dpo"), rounded(636), rounded(150), 50),
        (named("lpoi"), 636, 150, 170),
        (ranked_responses(5), 636, 150, 60),
    ],
)
def test_a_7b_example_with_a_cached_reference_stays_below(recipe, prefix, answer, most):
    made = step_flops(LlavaConfig(), recipe, prefix=prefix, answer=answer, rank=8, cached=True)
    assert 0.5 * most < made / TERA <= most


def test_the_usual_stack_is_what_peers_compute():
    """86 TF for a pair: two whole sequences, forward, recomputed, backward by inputs, reference."""
    assert usual_flops(LlavaConfig(), 2, 636, 150) / TERA == pytest.approx(86, rel=0.05)
