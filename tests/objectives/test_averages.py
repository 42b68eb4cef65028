"""Averages of two losses, and the coin that chooses one of two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.objectives import bernoulli_mixture, dpo, gamma_average

KEYS = jax.random.split(jax.random.key(7), 64)
FIRST, SECOND = jnp.arange(64.0), -jnp.arange(64.0) - 1


def taken(keys, probability=0.5):
    """True where the coin took the first."""
    ones = jnp.ones(keys.shape)
    return np.asarray(bernoulli_mixture(keys, ones, 0 * ones, probability)).astype(bool)


@pytest.mark.parametrize("gamma, expected", [(0.5, 3.0), (0.25, 2.5), (1.0, 4.0), (0.0, 2.0)])
def test_gamma_is_the_share_of_the_first_loss(gamma, expected):
    assert float(gamma_average(jnp.float32(4), jnp.float32(2), gamma)) == expected


@pytest.mark.smoke
def test_each_example_is_one_of_its_two():
    coins = taken(KEYS)
    assert 20 < coins.sum() < 44
    np.testing.assert_array_equal(bernoulli_mixture(KEYS, FIRST, SECOND), np.where(coins, FIRST, SECOND))


def test_the_first_is_taken_as_often_as_asked():
    keys = jax.random.split(jax.random.key(0), 4000)
    assert taken(keys, 0.2).mean() == pytest.approx(0.2, abs=0.02)
    assert taken(KEYS, 1.0).all() and not taken(KEYS, 0.0).any()


def test_a_coin_depends_on_no_batch_mate():
    coins = taken(KEYS)
    np.testing.assert_array_equal(taken(KEYS[::-1]), coins[::-1])
    np.testing.assert_array_equal(taken(KEYS.reshape(4, 16)), coins.reshape(4, 16))
    assert taken(KEYS[3]) == coins[3]


def test_one_coin_chooses_both_sides_of_a_pair():
    rewards, sampled = (FIRST, FIRST + 100), (SECOND, SECOND + 100)
    preferred, other = bernoulli_mixture(KEYS, rewards, sampled)
    np.testing.assert_array_equal(other - preferred, 100)


def test_choosing_rewards_and_then_the_loss_is_choosing_among_two_losses():
    early = dpo(*bernoulli_mixture(KEYS, (FIRST, SECOND), (SECOND, FIRST)))
    late = bernoulli_mixture(KEYS, dpo(FIRST, SECOND), dpo(SECOND, FIRST))
    np.testing.assert_array_equal(early, late)


def test_only_what_is_taken_gets_a_gradient():
    coins = taken(KEYS)
    slopes = jax.grad(lambda both: bernoulli_mixture(KEYS, *both).sum())((FIRST, SECOND))
    np.testing.assert_array_equal(slopes[0], coins)
    np.testing.assert_array_equal(slopes[1], ~coins)


@pytest.mark.parametrize("broken", [jnp.inf, -jnp.inf, jnp.nan])
def test_a_broken_reward_that_is_not_taken_leaves_loss_and_gradients_finite(broken):
    coins = taken(KEYS)

    def loss(offline, sampled):
        return dpo(*bernoulli_mixture(KEYS, offline, sampled)).sum()

    sampled = jnp.where(coins, broken, SECOND)
    value, slopes = jax.value_and_grad(loss, argnums=(0, 1))((FIRST, SECOND), (sampled, FIRST))
    assert np.isfinite(value) and all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
    assert not np.asarray(slopes[1][0])[coins].any()
