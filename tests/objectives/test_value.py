"""The value head's loss: where it follows the value, and where the value has moved far enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.objectives import clipped_value_loss

ONE = jnp.ones((1, 1), bool)


@jax.jit
@jax.value_and_grad
def loss_and_slope(value, then, target):
    one = [jnp.reshape(number, (1, 1)) for number in (value, then, target)]
    return clipped_value_loss(*one, ONE, 0.25)[0][0]


@pytest.mark.smoke
@pytest.mark.parametrize(
    "value, target, expected, slope",
    [
        (1.1, 3.0, 1.9**2 / 2, -1.9),  # within reach of what it was
        (1.5, 3.0, 1.75**2 / 2, 0),  # moved the right way, and far enough: clipped at 1.25
        (0.5, 3.0, 2.5**2 / 2, -2.5),  # moved the wrong way: pushed back
        (1.5, 1.3, 0.2**2 / 2, 0.2),  # overshot: pushed back
        (1.0, 1.0, 0, 0),
    ],
)
def test_a_value_gains_nothing_beyond_the_clip(value, target, expected, slope):
    loss, gradient = loss_and_slope(value, 1.0, target)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert float(gradient) == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_sums_counted_tokens_whatever_the_others_hold():
    mask = np.array([[True, True, False], [False, False, False]])
    values, then, target = np.where(mask, np.array([1.0, 2.0, 0.0]), np.nan)[None] * np.ones((3, 1, 1))
    losses, tokens = clipped_value_loss(values, then, target + 2, mask, 10.0)
    np.testing.assert_allclose(losses, [4, 0], rtol=1e-6)  # 1/2 (2^2 + 2^2)
    np.testing.assert_array_equal(tokens, [2, 0])
    slopes = jax.grad(lambda v: clipped_value_loss(v, then, target + 2, mask)[0].sum())(jnp.array(values))
    np.testing.assert_allclose(slopes, [[-2, -2, 0], [0, 0, 0]], rtol=1e-6)


def test_what_was_and_what_came_are_constants():
    rows = jnp.array(np.random.default_rng(0).normal(size=(3, 1, 4)), jnp.float32)
    slopes = jax.grad(lambda r: clipped_value_loss(*r, jnp.ones((1, 4), bool))[0].sum())(rows)
    assert slopes[0].any() and not slopes[1:].any()
