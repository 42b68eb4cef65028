"""Causal attention and attention of branches against the plain one, by every backend that runs here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.attention import attention, branch_attention, causal_attention, causal_mask
from vla_jax.models.compute import Compute
from vla_jax.models.target import Target

RANDOM = np.random.default_rng(0)


def array(*shape):
    return jnp.array(RANDOM.normal(size=shape), jnp.float32)


def by_hand(queries, keys, values, valid, window):
    """One query, one head at a time, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (queries, keys, values))
    made, (rows, length, heads, size), total = np.zeros(q.shape), q.shape, k.shape[1]
    for b, t, h in np.ndindex(rows, length, heads):
        place, g = total - length + t, h * k.shape[2] // heads
        first = max(0, place - window + 1) if window else 0
        seen = [s for s in range(first, place + 1) if valid[b, s]]
        if seen:
            scores = k[b, seen, g] @ q[b, t, h] / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            made[b, t, h] = weights @ v[b, seen, g] / weights.sum()
    return made


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_query_sees_valid_keys_up_to_its_own_place(window, kv_heads):
    q, k, v = array(2, 5, 4, 8), array(2, 9, kv_heads, 8), array(2, 9, kv_heads, 8)
    valid = jnp.arange(9) >= jnp.array([0, 3])[:, None]
    made = causal_attention(q, k, v, valid, window=window)
    np.testing.assert_allclose(made, by_hand(q, k, v, valid, window), atol=1e-5)


@pytest.mark.parametrize("length", [79, 160, 333, 2060])
def test_blocks_of_queries_change_nothing(length):
    q, k, v = array(1, length, 2, 8), array(1, length + 7, 2, 8), array(1, length + 7, 2, 8)
    valid = jnp.arange(length + 7)[None] >= 4
    mask = causal_mask(length, length + 7)[None] & valid[:, None]
    np.testing.assert_allclose(causal_attention(q, k, v, valid), attention(q, k, v, mask), atol=1e-5)


@pytest.mark.parametrize("window", [0, 140])
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("length", [79, 256, 333])
def test_tiles_of_keys_change_nothing(length, kv_heads, window):
    q, k, v = array(2, length, 2, 8), array(2, length + 7, kv_heads, 8), array(2, length + 7, kv_heads, 8)
    valid = jnp.arange(length + 7) >= jnp.array([0, 150])[:, None]
    made = causal_attention(q, k, v, valid, window=window, tiled=True)
    plain = causal_attention(q, k, v, valid, window=window)
    # Rows that see nothing average what stands before their block's end, tiles or not.
    np.testing.assert_allclose(made, plain, atol=1e-5, strict=True)


@pytest.mark.parametrize("tiled", [False, True])
def test_scores_beyond_what_can_be_exponentiated(tiled):
    q, k, v = 20 * array(1, 300, 1, 8), 20 * array(1, 300, 1, 8), array(1, 300, 1, 8)
    valid = jnp.ones((1, 300), bool)
    made = causal_attention(q, k, v, valid, tiled=tiled)
    np.testing.assert_allclose(made, by_hand(q, k, v, valid, 0), atol=2e-3)


def test_float16_is_added_up_in_float32_in_tiles_too():
    q, k, v = (array(1, 300, 2, 8) * 3 for _ in range(3))
    valid = jnp.ones((1, 300), bool)
    halves = [x.astype(jnp.float16) for x in (q, k, v)]
    made = causal_attention(*halves, valid, tiled=True)
    plain = causal_attention(*(x.astype(jnp.float32) for x in halves), valid)
    assert made.dtype == jnp.float16
    np.testing.assert_allclose(made, plain, atol=1e-2)


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("views", [(0,), (0, 0, 0), (0, 1, 2, 0), (1, 0, 1)])
def test_a_branch_sees_its_own_prefix_and_itself(views, kv_heads, window):
    count, shared = len(views), max(views) + 1
    q = array(2, count, 4, 4, 8)
    prefix = array(2, shared, 7, kv_heads, 8), array(2, shared, 7, kv_heads, 8)
    own = array(2, count, 4, kv_heads, 8), array(2, count, 4, kv_heads, 8)
    before = jnp.arange(7) >= jnp.array([0, 4])[:, None]
    after = jnp.arange(4) < jnp.array(RANDOM.integers(1, 5, (2, count)))[..., None]
    made = branch_attention(q, prefix, own, before, after, views, window=window)
    for branch, view in enumerate(views):
        k, v = (jnp.concatenate([p[:, view], o[:, branch]], axis=1) for p, o in zip(prefix, own, strict=True))
        valid = jnp.concatenate([before, after[:, branch]], axis=1)
        expected = by_hand(q[:, branch], k, v, valid, window)
        there = after[:, branch][..., None, None]
        np.testing.assert_allclose(made[:, branch] * there, expected * there, atol=1e-5)


@pytest.mark.parametrize("window", [0, 100])
def test_splash_gives_the_plain_values_and_gradients(window):
    """Interpreted: the kernel's arithmetic, not its speed."""
    q, k, v = array(1, 128, 2, 64), array(1, 256, 1, 64), array(1, 256, 1, 64)
    valid = jnp.arange(256)[None] >= 30
    weights = array(1, 128, 2, 64)

    def total(q, k, v, backend):
        made = causal_attention(q, k, v, valid, window=window, backend=backend)
        return jnp.sum(weights * made), made

    slopes = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
    (ours, made), (theirs, expected) = slopes(q, k, v, "splash"), slopes(q, k, v, "xla")
    np.testing.assert_allclose(made, expected, atol=2e-5)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_splash_gives_branches_their_plain_values_and_gradients():
    q, views = array(1, 2, 128, 2, 64), (0, 0)
    prefix = array(1, 1, 128, 2, 64), array(1, 1, 128, 2, 64)
    own = array(1, 2, 128, 2, 64), array(1, 2, 128, 2, 64)
    before, after = jnp.arange(128)[None] >= 9, jnp.ones((1, 2, 128), bool)
    weights = array(*q.shape)

    def total(q, prefix, own, backend):
        made = branch_attention(q, prefix, own, before, after, views, backend=backend)
        return jnp.sum(weights * made), made

    slopes = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
    (ours, made), (theirs, expected) = (slopes(q, prefix, own, backend) for backend in ("splash", "xla"))
    np.testing.assert_allclose(made, expected, atol=2e-5)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert float(jnp.abs(other).max()) > 0.1
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_splash_says_which_lengths_it_takes():
    q = array(1, 100, 2, 64)
    with pytest.raises(ValueError, match="multiples of 128; set data.max_prompt_length"):
        causal_attention(q, q, q, jnp.ones((1, 100), bool), backend="splash")


@pytest.mark.parametrize("backend, machine", [("splash", "tpu"), ("splash", "gpu"), ("cudnn", "cpu")])
def test_a_backend_is_refused_where_it_has_not_been_compared(backend, machine):
    with pytest.raises(ValueError, match="allow_unverified=True"):
        Compute(attention=backend, target=Target(machine)).check_machine()
    Compute(attention=backend, allow_unverified=True, target=Target(machine)).check_machine()


def test_unknown_choices_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="choose one of xla, splash, cudnn"):
        Compute(attention="flash")
    with pytest.raises(ValueError, match="choose one of none, block, dots, offload"):
        Compute(remat="all")
