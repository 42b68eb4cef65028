"""Which image tokens stay visible."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.views import keep_mask

KEY = jax.random.key(0)


@pytest.mark.smoke
@pytest.mark.parametrize("threshold", [0.5, 0.98, 0.99])
def test_the_share_kept_is_one_minus_the_threshold(threshold):
    tokens = 400_000
    kept = keep_mask(KEY, tokens, threshold)
    assert kept.shape == (tokens,) and kept.dtype == bool
    deviation = np.sqrt(threshold * (1 - threshold) / tokens)
    assert kept.mean() == pytest.approx(1 - threshold, abs=4 * deviation)


def test_zero_keeps_every_token_and_one_none():
    assert keep_mask(KEY, 10_000, 0.0).all()
    assert not keep_mask(KEY, 10_000, 1.0).any()


def test_a_higher_threshold_keeps_a_part_of_what_a_lower_one_keeps():
    low, high = (np.asarray(keep_mask(KEY, 5000, threshold)) for threshold in (0.3, 0.6))
    assert (low | ~high).all() and low.sum() > high.sum()


def test_tokens_are_kept_independently():
    kept = np.asarray(keep_mask(KEY, 200_000, 0.5), float)
    assert abs(np.corrcoef(kept[:-1], kept[1:])[0, 1]) < 0.01


def test_the_key_fixes_the_mask():
    np.testing.assert_array_equal(keep_mask(KEY, 576), keep_mask(KEY, 576))
    assert (keep_mask(KEY, 576, 0.5) != keep_mask(jax.random.key(1), 576, 0.5)).any()


def test_a_batch_of_keys_gives_what_each_gives_alone():
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    together = jax.vmap(lambda key: keep_mask(key, 576, 0.9))(keys)
    np.testing.assert_array_equal(together, [keep_mask(jax.random.key(seed), 576, 0.9) for seed in range(4)])


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="must lie in"):
        keep_mask(KEY, 576, threshold)
