"""Cross-entropy as a sum and the number of tokens it sums, kept apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.objectives import negative_log_likelihood

LOG_PROBS = jnp.array([[-1.0, -2.0, -4.0], [-0.5, -8.0, -16.0]])
MASK = jnp.array([[True, False, True], [True, False, False]])


@pytest.mark.smoke
def test_sums_the_counted_tokens_and_counts_them():
    losses, tokens = negative_log_likelihood(LOG_PROBS, MASK)
    np.testing.assert_array_equal(losses, [5.0, 0.5])
    np.testing.assert_array_equal(tokens, [2.0, 1.0])
    assert tokens.dtype == jnp.float32


def test_a_row_without_counted_tokens_sums_to_nothing():
    losses, tokens = negative_log_likelihood(LOG_PROBS, jnp.zeros_like(MASK))
    assert not losses.any() and not tokens.any()


def test_uncounted_tokens_count_nowhere_even_when_infinite():
    broken = jnp.where(MASK, LOG_PROBS, -jnp.inf)
    losses, slopes = jax.value_and_grad(lambda lp: negative_log_likelihood(lp, MASK)[0].sum())(broken)
    assert float(losses) == 5.5
    np.testing.assert_array_equal(slopes, -MASK.astype(jnp.float32))


def test_the_parts_of_a_batch_add_up_to_its_mean():
    losses, tokens = negative_log_likelihood(LOG_PROBS, MASK)
    parts = [negative_log_likelihood(LOG_PROBS[i], MASK[i]) for i in range(2)]
    assert float(losses.sum() / tokens.sum()) == pytest.approx(
        float(sum(loss for loss, _ in parts) / sum(count for _, count in parts))
    )
