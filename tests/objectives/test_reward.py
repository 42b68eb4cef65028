"""The reward model's loss: order, margin, and scores that stay around zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.objectives import bradley_terry, dpo

SCORES = np.random.default_rng(0).normal(0, 3, (2, 40))
CHOSEN, REJECTED = jnp.array(SCORES, jnp.float32)
score = st.floats(-50, 50, width=32)


@pytest.mark.smoke
def test_costs_the_negative_log_sigmoid_of_the_scores_difference():
    expected = np.log1p(np.exp(-(SCORES[0] - SCORES[1])))
    np.testing.assert_allclose(bradley_terry(CHOSEN, REJECTED), expected, rtol=1e-5, atol=1e-6)


def test_without_extras_it_is_the_formula_of_pairs_of_rewards():
    np.testing.assert_array_equal(bradley_terry(CHOSEN, REJECTED), dpo(CHOSEN, REJECTED))


def test_a_margin_is_taken_from_the_difference():
    margins = jnp.linspace(0, 2, 40)
    np.testing.assert_allclose(
        bradley_terry(CHOSEN, REJECTED, margins), dpo(CHOSEN - margins, REJECTED), rtol=1e-5, atol=1e-6
    )
    assert float(bradley_terry(jnp.float32(2), jnp.float32(0.5), 1.5)) == pytest.approx(np.log(2))


def test_centering_adds_the_squared_sum_of_the_scores():
    added = bradley_terry(CHOSEN, REJECTED, centering=0.01) - bradley_terry(CHOSEN, REJECTED)
    np.testing.assert_allclose(added, 0.01 * (SCORES[0] + SCORES[1]) ** 2, rtol=1e-4, atol=1e-6)


@given(chosen=score, rejected=score, shift=score)
@settings(max_examples=30, deadline=None)
def test_only_centering_minds_a_constant_added_to_all_scores(chosen, rejected, shift):
    chosen, rejected, shift = (jnp.float32(number) for number in (chosen, rejected, shift))
    moved = bradley_terry(chosen + shift, rejected + shift)
    assert float(moved) == pytest.approx(float(bradley_terry(chosen, rejected)), rel=1e-4, abs=1e-4)


def test_centering_pulls_equal_scores_to_zero():
    slope = jax.grad(lambda s: bradley_terry(s, s, centering=0.01))(jnp.float32(3))
    assert float(slope) == pytest.approx(0.01 * 2 * 6 * 2)
