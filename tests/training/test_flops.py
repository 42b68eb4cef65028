"""FLOPs read off a program: loops multiplied, dead code left out."""

import jax
import jax.numpy as jnp
import pytest

from vla_jax.training.flops import program_flops as flops

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)
W = jax.ShapeDtypeStruct((8, 8), jnp.float32)


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
