"""The rewards of object words, line by line of the paper's table, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.objectives import Baselines, verified_token_rewards

# With a margin of 10 words are blamed below 30 and praised above 70.
BASELINES = Baselines(correct=60.0, hallucinated=40.0, lowest=10.0, highest=90.0)


def rewards_of(scores, entities=None, divergences=None, **settings):
    scores = jnp.array(scores, jnp.float32)
    entities = jnp.ones_like(scores, bool) if entities is None else jnp.array(entities)
    divergences = jnp.zeros_like(scores) if divergences is None else jnp.array(divergences)
    return verified_token_rewards(scores, entities, divergences, BASELINES, **settings)


@pytest.mark.smoke
@pytest.mark.parametrize(
    "score, worth, as_printed",
    [
        (20.0, -0.5, -0.25),  # (20 - 30) / (30 - 10), and / ((60 - 10) - 10)
        (10.0, -1.0, -0.5),  # the lowest score
        (5.0, -1.0, -0.625),  # lower than any that was measured
        (30.0, 0.0, 0.0),  # on the threshold
        (50.0, 0.0, 0.0),  # neither seen nor missed
        (70.0, 0.0, 0.0),  # on the threshold
        (80.0, 0.5, 0.5),  # (80 - 70) / (90 - 70)
        (90.0, 1.0, 1.0),  # the highest score
        (95.0, 1.0, 1.0),  # higher than any that was measured
    ],
)
def test_every_line_of_the_table(score, worth, as_printed):
    assert rewards_of([score]).rewards == pytest.approx([worth])
    assert rewards_of([score], paper_denominator=True).rewards == pytest.approx([as_printed])


def test_only_rewarded_tokens_pay_for_their_divergence():
    found = rewards_of([20.0, 50.0, 80.0, 80.0], [True, True, True, False], [1.5, 1.5, 0.5, 1.5])
    np.testing.assert_allclose(found.rewards, [-0.5 - 0.3, 0.0, 0.5 - 0.1, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(found.blamed, [True, False, False, False])
    np.testing.assert_array_equal(found.praised, [False, False, True, False])


def test_the_margin_moves_both_thresholds_apart():
    found = rewards_of([35.0, 65.0], margin=0.0)  # blamed below 40, praised above 60
    np.testing.assert_allclose(found.rewards, [-5 / 30, 5 / 30], rtol=1e-6)


def test_thresholds_beyond_the_measured_extremes_give_whole_rewards():
    narrow = Baselines(correct=60.0, hallucinated=40.0, lowest=35.0, highest=65.0)
    scores, zeros = jnp.array([20.0, 80.0]), jnp.zeros(2)
    found = verified_token_rewards(scores, jnp.ones(2, bool), zeros, narrow)
    np.testing.assert_array_equal(found.rewards, [-1.0, 1.0])


def test_rewards_are_held_constant():
    slope = jax.grad(
        lambda scores: verified_token_rewards(scores, scores > 0, scores, BASELINES).rewards.sum()
    )
    np.testing.assert_array_equal(slope(jnp.array([20.0, 80.0])), [0.0, 0.0])
