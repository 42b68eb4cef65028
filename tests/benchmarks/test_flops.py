"""FLOPs read off a program: loops multiplied, dead code left out; and the layouts' bars for a 7B."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.flops import program_flops as flops
from benchmarks.flops import ranked_responses, rounded, step_flops, usual_flops
from vla_jax.models import LlavaConfig
from vla_jax.recipes import named

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)
W = jax.ShapeDtypeStruct((8, 8), jnp.float32)
TERA = 1e12


def test_a_product_counts_twice_its_multiplications():
    assert flops(lambda x, w: x @ w, X, W) == 2 * 4 * 8 * 8


def test_a_scan_counts_as_often_as_it_runs():
    def looped(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=5)[0]

    assert flops(looped, X, W) == 5 * flops(lambda x, w: x @ w, X, W)
    assert flops(jax.jit(looped), X, W) == flops(looped, X, W)


def test_what_no_output_needs_is_not_counted():
    assert flops(lambda x, w: (x @ w, x)[1] * 2, X, W) == 0


def test_a_convolution_counts_its_window():
    image, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 3, 9, 9), (5, 3, 3, 3)))
    made = flops(lambda i, k: jax.lax.conv(i, k, (1, 1), "VALID"), image, kernel)
    assert made == 2 * (5 * 7 * 7) * (3 * 3 * 3)


def test_a_while_loop_of_products_is_refused():
    def looped(x, w):
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ w, x)

    with pytest.raises(ValueError, match="while loop"):
        flops(looped, X, W)


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
