"""Log-probabilities of corrected responses, whose changed tokens weigh more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.objectives import weighted_log_probs

LOG_PROBS = jnp.array([[-1.0, -2.0, -4.0, -8.0], [-0.5, -16.0, -32.0, -64.0]])
MASK = jnp.array([[True, True, True, False], [True, True, False, False]])
CHANGED = jnp.array([[False, True, False, True], [True, True, True, True]])


@pytest.mark.smoke
def test_a_changed_token_counts_lambda_times_in_the_mean():
    expected = [(-1 + 5 * -2 - 4) / (2 + 5), (5 * -0.5 + 5 * -16) / 10]
    np.testing.assert_allclose(weighted_log_probs(LOG_PROBS, MASK, CHANGED), expected, rtol=1e-6)


def test_a_changed_token_counts_lambda_times_in_the_sum():
    sums = weighted_log_probs(LOG_PROBS, MASK, CHANGED, changed_weight=1.5, mean=False)
    np.testing.assert_allclose(sums, [-1 + 1.5 * -2 - 4, 1.5 * -16.5], rtol=1e-6)


@pytest.mark.parametrize("mean", [True, False])
def test_weight_one_makes_it_the_plain_log_probability(mean):
    plain = jnp.where(MASK, LOG_PROBS, 0).sum(-1) / (MASK.sum(-1) if mean else 1)
    np.testing.assert_allclose(weighted_log_probs(LOG_PROBS, MASK, CHANGED, 1.0, mean), plain, rtol=1e-6)


@pytest.mark.parametrize("changed", [CHANGED | True, CHANGED & False])
def test_a_mean_over_tokens_that_all_weigh_alike_ignores_the_weight(changed):
    plain = jnp.where(MASK, LOG_PROBS, 0).sum(-1) / MASK.sum(-1)
    np.testing.assert_allclose(weighted_log_probs(LOG_PROBS, MASK, changed, 5.0), plain, rtol=1e-6)


@pytest.mark.parametrize("mean", [True, False])
def test_uncounted_tokens_count_nowhere_even_when_infinite(mean):
    broken = jnp.where(MASK, LOG_PROBS, -jnp.inf)
    value, slopes = jax.value_and_grad(lambda lp: weighted_log_probs(lp, MASK, CHANGED, mean=mean).sum())(
        broken
    )
    assert float(value) == pytest.approx(float(weighted_log_probs(LOG_PROBS, MASK, CHANGED, mean=mean).sum()))
    assert np.isfinite(slopes).all() and not slopes[~MASK].any()


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("mask, weight", [(MASK & False, 5.0), (MASK, 0.0)], ids=["no tokens", "no weight"])
def test_a_row_without_weight_is_zero_with_finite_gradients(mask, weight, mean):
    @jax.jit
    @jax.value_and_grad
    def total(log_probs):
        return weighted_log_probs(log_probs, mask, CHANGED | True, weight, mean).sum()

    value, slopes = total(LOG_PROBS)
    assert float(value) == 0 and not slopes.any()
