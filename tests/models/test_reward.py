"""The reward head: one number a row, read at its last valid token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models import parameters, reward

WIDTH = 5


@pytest.fixture(scope="module")
def params():
    return parameters.initialise(reward.table(WIDTH), jax.random.key(0))


@pytest.fixture(scope="module")
def states():
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, WIDTH)), jnp.float32)


@pytest.mark.smoke
def test_the_reward_is_the_last_valid_state_times_the_head(params, states):
    valid = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], bool)
    expected = [states[row, last] @ params["score"] for row, last in enumerate((1, 3, 3))]
    np.testing.assert_allclose(reward.rewards(params, states, valid), expected, atol=1e-6)


def test_only_the_last_valid_state_gets_a_gradient(params, states):
    valid = jnp.array([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]], bool)
    gradient = jax.jit(jax.grad(lambda states: reward.rewards(params, states, valid).sum()))(states)
    read = jnp.abs(gradient).max(axis=-1) > 0
    np.testing.assert_array_equal(read, [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]])


@pytest.mark.parametrize(("left", "right"), [(0, 3), (3, 0), (1, 2)])
def test_padding_on_either_side_changes_no_reward(params, states, left, right):
    widths = ((0, 0), (left, right))
    padded = jnp.pad(states, (*widths, (0, 0)), constant_values=7.0)
    valid = jnp.ones((3, 4), bool)
    np.testing.assert_allclose(
        reward.rewards(params, padded, jnp.pad(valid, widths)),
        reward.rewards(params, states, valid),
        atol=1e-6,
    )


def test_a_row_with_no_valid_token_is_read_at_its_first_position(params, states):
    rewards = reward.rewards(params, states, jnp.zeros((3, 4), bool))
    np.testing.assert_allclose(rewards, states[:, 0] @ params["score"], atol=1e-6)


def test_half_precision_is_summed_in_float32():
    # bfloat16 cannot tell 256 from 257.
    states = jnp.ones((1, 1, 257), jnp.bfloat16)
    rewards = reward.rewards({"score": jnp.ones(257, jnp.bfloat16)}, states, jnp.ones((1, 1), bool))
    assert rewards.dtype == jnp.float32 and rewards[0] == 257


def test_the_head_is_stored_as_transformers_has_it_and_no_adapter_takes_it():
    (parameter,) = reward.table(WIDTH).values()
    assert (parameter.shape, parameter.hugging_face, parameter.layout) == (
        (WIDTH,),
        "score.weight",
        "1 d -> d",
    )
    assert not parameter.is_block_linear


def test_fresh_rewards_are_of_order_one():
    params = parameters.initialise(reward.table(4096), jax.random.key(0))
    states = jax.random.normal(jax.random.key(1), (64, 1, 4096))
    assert 0.7 < reward.rewards(params, states, jnp.ones((64, 1), bool)).std() < 1.4
