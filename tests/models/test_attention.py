"""Attention against its definition, head by head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models import attention as module

attention = jax.jit(module.attention)


def draw(*shapes):
    """Standard normal arrays."""
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@jax.jit
def plain_attention(queries, keys, values, mask=None):
    """One einsum a line, key heads repeated."""
    repeats = queries.shape[2] // keys.shape[2]
    keys, values = (jnp.repeat(heads, repeats, axis=2) for heads in (keys, values))
    logits = jnp.einsum("bthk,bshk->bhts", queries, keys) * queries.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, -jnp.inf)
    return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(logits), values)


@pytest.mark.smoke
def test_grouped_heads_equal_repeated_heads():
    queries, keys, values = draw((2, 5, 6, 8), (2, 7, 3, 8), (2, 7, 3, 8))
    repeated = [jnp.repeat(heads, 2, axis=2) for heads in (keys, values)]
    np.testing.assert_allclose(
        attention(queries, keys, values), attention(queries, *repeated), atol=1e-6, strict=True
    )


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_the_definition_under_a_causal_mask(kv_heads):
    queries, keys, values = draw((2, 6, 4, 8), (2, 6, kv_heads, 8), (2, 6, kv_heads, 8))
    causal = jnp.tril(jnp.ones((6, 6), bool))[None]
    np.testing.assert_allclose(
        attention(queries, keys, values, causal), plain_attention(queries, keys, values, causal), atol=1e-5
    )


def test_every_row_has_its_own_mask():
    queries, keys, values = draw((2, 3, 2, 8), (2, 4, 2, 8), (2, 4, 2, 8))
    mask = jnp.array([[[True, True, False, False]], [[False, True, True, True]]])
    np.testing.assert_allclose(
        attention(queries, keys, values, mask), plain_attention(queries, keys, values, mask), atol=1e-5
    )


def test_a_query_that_may_see_nothing_takes_in_nothing():
    queries, keys, values = draw((1, 3, 2, 8), (1, 4, 2, 8), (1, 4, 2, 8))
    mask = jnp.ones((1, 3, 4), bool).at[0, 1].set(False)
    made = attention(queries, keys, values, mask)
    np.testing.assert_array_equal(made[0, 1], np.zeros((2, 8)))
    assert (np.abs(made[0, ::2]) > 0).all()


def test_gradients_stay_finite_where_a_query_may_see_nothing():
    queries, keys, values = draw((1, 3, 2, 8), (1, 4, 2, 8), (1, 4, 2, 8))
    mask = jnp.zeros((1, 3, 4), bool)
    gradients = jax.grad(lambda *inputs: attention(*inputs, mask).sum(), argnums=(0, 1, 2))(
        queries, keys, values
    )
    assert all(np.isfinite(gradient).all() for gradient in gradients)
