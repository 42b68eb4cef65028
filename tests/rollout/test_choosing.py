"""Tokens are drawn from what the filters leave, and responses end where they are told to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vla_jax.rollout import Sampling
from vla_jax.rollout.choosing import _reached, choose, ended, filtered, remembered

LOGITS = np.random.default_rng(0).normal(scale=2.0, size=50).astype(np.float32)


def expected(temperature, top_k, top_p):
    """Probabilities of all tokens, as the words of the definitions have it."""
    scaled = LOGITS.astype(np.float64) / temperature
    probabilities = np.exp(scaled) / np.exp(scaled).sum()
    order = np.argsort(-scaled)
    if top_k:
        probabilities[order[top_k:]] = 0
        probabilities /= probabilities.sum()
    together = 0.0
    for i, token in enumerate(order):
        together += probabilities[token]
        if together >= top_p:
            probabilities[order[i + 1 :]] = 0
            break
    return probabilities / probabilities.sum()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.6, 0, 0.8), (1.5, 7, 1.0), (1.0, 12, 0.7)]
)
def test_tokens_are_drawn_from_the_filtered_softmax(temperature, top_k, top_p):
    """Chi-square of 5,000 draws; tokens expected fewer than five times make one bin."""
    sampling = Sampling(1, temperature=temperature, top_k=top_k, top_p=top_p)
    tokens, _ = choose(jnp.tile(LOGITS, (5000, 1)), sampling, jax.random.key(3))
    wanted = 5000 * expected(temperature, top_k, top_p)
    counts = np.bincount(tokens, minlength=len(LOGITS))
    assert not counts[wanted == 0].any()
    rare = wanted < 5
    observed, bins = [*counts[~rare], counts[rare].sum()], [*wanted[~rare], wanted[rare].sum()]
    kept = [i for i, size in enumerate(bins) if size > 0]
    assert len(kept) > 4
    assert stats.chisquare(np.take(observed, kept), np.take(bins, kept)).pvalue > 1e-3


@pytest.mark.parametrize("count", [126, 256, 501, 594])
def test_nothing_of_weight_0_is_reached(count):
    """Shares on both sides of every running sum, which XLA adds up in parts beyond some hundreds."""
    rng = np.random.default_rng(count)
    weights = np.where(rng.random(count) < 0.7, 0, rng.random(count)).astype(np.float32)
    weights[-7:] = 0
    sums = np.asarray(jnp.cumsum(weights) / weights.sum())
    shares = np.concatenate([sums, *(np.nextafter(sums, side, dtype=np.float32) for side in (0, 1))])
    shares = shares[shares < 1]
    reached = _reached(jnp.tile(weights, (len(shares), 1)), jnp.asarray(shares))
    assert (weights[reached] > 0).all()
    exact = np.searchsorted(np.cumsum(weights.astype(np.float64)) / weights.sum(dtype=np.float64), shares)
    steps = np.flatnonzero(weights)
    apart = np.searchsorted(steps, reached) - np.searchsorted(steps, np.minimum(exact, steps[-1]))
    assert abs(apart).max() <= 1


def test_log_probs_are_of_all_tokens_at_temperature_1():
    tokens, log_probs = choose(LOGITS[None], Sampling(1, temperature=0.3, top_k=3), jax.random.key(0))
    np.testing.assert_allclose(log_probs, jax.nn.log_softmax(LOGITS)[tokens], atol=1e-6)
    tokens, log_probs = choose(LOGITS[None], Sampling(1), None)
    assert tokens[0] == LOGITS.argmax()
    np.testing.assert_allclose(log_probs, jax.nn.log_softmax(LOGITS)[tokens], atol=1e-6)


@pytest.mark.parametrize("top_p", [1e-6, 0.5])
def test_the_likeliest_token_is_always_left(top_p):
    sure = jnp.array([0.0, 9.0, 1.0])
    left = filtered(sure, Sampling(1, temperature=1.0, top_p=top_p))
    np.testing.assert_array_equal(jnp.isfinite(left), [False, True, False])


def test_a_response_ends_with_an_end_token_or_a_whole_stop_sequence():
    sampling = Sampling(9, end_ids=(2, 3), stop=((5, 6, 7), (8, 8)))
    last = jnp.full((1, sampling.memory), -1)
    done = []
    for token in [6, 7, 5, 6, 7, 8, 5, 8, 8, 8, 3, 2, 4]:
        last = remembered(last, jnp.array([token]))
        done.append(bool(ended(last, sampling)[0]))
    assert [i for i, each in enumerate(done) if each] == [4, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; a response has at least 1 token"),
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0 .greedy. or at least 1e-30"),
        ({"temperature": 1e-39}, "temperature is 1e-39; it must be 0 .greedy. or at least 1e-30"),
        ({"temperature": float("nan")}, "temperature is nan; it must be 0 .greedy. or at least 1e-30"),
        ({"top_k": -1}, "top_k is -1; it must be positive, or 0 for all"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"stop": ((),)}, "stop has an empty sequence"),
    ],
)
def test_what_cannot_be_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**{"max_new_tokens": 1, **fields})


@pytest.mark.parametrize("temperature", [1e-30, 1e38, float("inf")])
def test_any_temperature_draws_tokens_that_there_are(temperature):
    tokens, log_probs = choose(LOGITS[None], Sampling(1, temperature=temperature), jax.random.key(0))
    assert (temperature > 1) or (np.asarray(tokens) == np.asarray(LOGITS).argmax(-1)).all()
    assert np.isfinite(log_probs).all()


def test_a_temperature_without_a_key_is_an_error():
    with pytest.raises(ValueError, match="temperature is 0.5: sampling needs a key"):
        choose(LOGITS[None], Sampling(1, temperature=0.5), None)


def test_keys_of_their_own_draw_what_each_draws_alone():
    sampling, keys = Sampling(1, temperature=1.0), jax.random.split(jax.random.key(4), (2, 1))
    logits = jnp.array(np.random.default_rng(1).normal(size=(2, 1, 50)), jnp.float32)
    together, _ = choose(logits, sampling, keys)
    alone = [[choose(logits[i, 0], sampling, keys[i, 0])[0]] for i in range(2)]
    np.testing.assert_array_equal(together, alone)
