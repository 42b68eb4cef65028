"""What answers and tokens were worth: leave-one-out, generalised advantages, whitening, standardising."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.objectives import generalized_advantages, leave_one_out, standardised, whiten

estimates = jax.jit(generalized_advantages)
whitened = jax.jit(whiten, static_argnames="shift_mean")
LENGTHS = np.array([5, 3, 1, 0])
MASK = np.arange(5) < LENGTHS[:, None]


@pytest.mark.smoke
def test_an_answers_advantage_is_its_reward_less_the_mean_of_the_others():
    # Others of 1: (2 + 3 + 6) / 3 = 11/3; of 6: (1 + 2 + 3) / 3 = 2.
    advantages = leave_one_out(jnp.array([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0]]))
    np.testing.assert_allclose(advantages[0], [-8 / 3, -4 / 3, 0, 4], rtol=1e-6)
    assert not advantages[1].any()


def test_advantages_of_a_prompt_add_up_to_nothing_and_mind_no_constant():
    rewards = jnp.array(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
    advantages = leave_one_out(rewards)
    np.testing.assert_allclose(advantages.sum(-1), np.zeros(6), atol=1e-5)
    np.testing.assert_allclose(leave_one_out(rewards + 7), advantages, atol=1e-5)
    # k / (k - 1) times the distance from the mean of all.
    np.testing.assert_allclose(advantages, 4 / 3 * (rewards - rewards.mean(-1, keepdims=True)), atol=1e-6)


def test_answers_without_a_reward_are_in_no_mean_and_have_no_advantage():
    rewards = jnp.array([[1.0, jnp.nan, 4.0], [jnp.nan, 2.0, jnp.inf]])
    advantages = leave_one_out(rewards, jnp.array([[True, False, True], [False, True, False]]))
    np.testing.assert_array_equal(advantages, [[-3, 0, 3], [0, 0, 0]])
    assert not leave_one_out(jnp.ones((2, 1))).any()


def test_generalised_advantages_of_three_tokens_by_hand():
    """gamma 1/2, lambda 1/2, values 4, 2, 8, the last token earns 16 and the first costs 1.

    delta: -1 + 1/2 2 - 4 = -4; 0 + 1/2 8 - 2 = 2; 16 - 8 = 8.
    A: 8; 2 + 1/4 8 = 4; -4 + 1/4 4 = -3. Returns: A + V = 1, 6, 16.
    """
    rewards, values = jnp.array([[-1.0, 0.0, 16.0, 9.0]]), jnp.array([[4.0, 2.0, 8.0, 9.0]])
    mask = jnp.array([[True, True, True, False]])
    advantages, returns = estimates(rewards, values, mask, 0.5, 0.5)
    np.testing.assert_array_equal(advantages, [[-3, 4, 8, 0]])
    np.testing.assert_array_equal(returns, [[1, 6, 16, 0]])


@pytest.mark.parametrize("gamma, lam", [(1.0, 1.0), (0.9, 0.95), (1.0, 0.0), (0.5, 1.0)])
def test_generalised_advantages_are_those_of_the_plain_loop(gamma, lam):
    rng = np.random.default_rng(1)
    rewards, values = rng.normal(size=(2, 4, 5))
    expected = np.zeros((4, 5))
    for row, length in enumerate(LENGTHS):
        later = 0.0
        for t in reversed(range(length)):
            following = values[row, t + 1] if t + 1 < length else 0.0
            later = rewards[row, t] + gamma * following - values[row, t] + gamma * lam * later
            expected[row, t] = later
    # Whatever stands at padding.
    rewards, values = (np.where(MASK, array, np.nan) for array in (rewards, values))
    advantages, returns = estimates(rewards, values, MASK, gamma, lam)
    np.testing.assert_allclose(advantages, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(returns, np.where(MASK, expected + values, 0), rtol=1e-5, atol=1e-6)


def test_undiscounted_returns_are_the_rewards_to_come_whatever_the_values():
    rewards, values = np.random.default_rng(2).normal(size=(2, 4, 5))
    _, returns = estimates(rewards, values, MASK, 1.0, 1.0)
    to_come = np.cumsum(np.where(MASK, rewards, 0)[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(returns, np.where(MASK, to_come, 0), rtol=1e-5, atol=1e-6)


def test_whitening_gives_counted_tokens_mean_0_and_variance_1():
    values = np.where(MASK, np.random.default_rng(3).normal(5, 3, (4, 5)), np.inf)
    counted = values[MASK]
    expected = (counted - counted.mean()) / np.sqrt(counted.var(ddof=1) + 1e-8)
    ours = np.asarray(whitened(values, MASK))
    np.testing.assert_allclose(ours[MASK], expected, rtol=1e-5)
    assert ours[MASK].std(ddof=1) == pytest.approx(1, rel=1e-5) and not ours[~MASK].any()
    kept = np.asarray(whitened(values, MASK, shift_mean=False))
    np.testing.assert_allclose(kept[MASK], expected + counted.mean(), rtol=1e-5)
    assert not kept[~MASK].any()


@pytest.mark.parametrize("counted", [0, 1])
def test_whitening_without_a_spread_gives_nothing_to_learn(counted):
    mask = jnp.arange(3) < counted
    assert not whitened(jnp.array([7.0, jnp.nan, 2.0]), mask).any()


@pytest.mark.parametrize("scale", [0.0, 1e4, 1e15])
def test_whitening_is_finite_at_extremes(scale):
    values = scale * jnp.array([[1.0, -1.0, 1.0, 1.0]])
    assert jnp.isfinite(whitened(values, jnp.ones((1, 4), bool))).all()


def test_standardised_rewards_have_mean_0_and_variance_1_over_what_was_measured():
    measured = np.random.default_rng(4).normal(-3, 7, 1000)
    ours = np.asarray(standardised(jnp.array(measured), float(measured.mean()), float(measured.std())))
    assert ours.mean() == pytest.approx(0, abs=1e-5) and ours.std() == pytest.approx(1, rel=1e-4)
