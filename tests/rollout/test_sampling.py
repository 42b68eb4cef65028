"""Sampling against a model that recomputes everything at every step."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy import stats

from tests.rollout.small_prompts import MASK, MODEL, TOKENS, image_tokens, trained_adapter
from vla_jax.rollout import Sampling, sample
from vla_jax.rollout.plain import plain_greedy, plain_logits
from vla_jax.scoring import token_log_probs

STEPS = 6


@pytest.fixture(scope="module")
def features():
    return image_tokens()


@pytest.fixture(scope="module")
def adapter():
    return trained_adapter()


def responses(features, adapter=None, key=None, count=1, max_new_tokens=STEPS, **how):
    """Of every prompt: [b count t]."""
    sampling = Sampling(max_new_tokens, **how)
    return sample(MODEL.params, adapter, MODEL.config, features, TOKENS, MASK, sampling, key, count=count)


def answer(features, adapter=None, **how):
    """One response to every prompt: [b t]."""
    return jax.tree.map(lambda array: array[:, 0], responses(features, adapter, **how))


@pytest.mark.smoke
def test_greedy_tokens_are_the_likeliest_of_a_full_recomputation_at_every_step(features):
    sampled = answer(features)
    expected = plain_greedy(MODEL.params, None, MODEL.config, features, TOKENS, MASK, STEPS)
    np.testing.assert_array_equal(sampled.tokens, expected)
    assert sampled.mask.all()


@pytest.mark.parametrize(("adapted", "temperature", "count"), [(False, 0.0, 1), (True, 0.7, 3)])
def test_log_probs_are_the_scorers_at_temperature_1(features, adapter, adapted, temperature, count):
    adapter = adapter if adapted else None
    sampled = responses(features, adapter, jax.random.key(0), count, temperature=temperature)
    scored = jax.jit(
        partial(token_log_probs, config=MODEL.config, candidates=tuple((0, k) for k in range(count)))
    )(
        MODEL.params,
        adapter,
        features=features[:, None],
        prefix_tokens=TOKENS,
        prefix_mask=MASK,
        response_tokens=sampled.tokens,
        response_mask=sampled.mask,
    )
    np.testing.assert_allclose(sampled.log_probs, scored, atol=1e-4)


def test_any_of_several_end_tokens_ends_a_row(features):
    endless = answer(features)
    first, second = (int(endless.tokens[row, place]) for row, place in ((0, 3), (1, 2)))
    stopped = answer(features, end_ids=(first, second))
    for row in range(3):
        ends = np.flatnonzero(np.isin(endless.tokens[row], (first, second)))
        assert stopped.mask[row].sum() == (ends[0] + 1 if len(ends) else STEPS)


def test_a_row_ends_with_its_end_token_and_the_others_go_on(features):
    endless = answer(features)
    row, place = 1, 2
    end_id = int(endless.tokens[row, place])
    stopped = answer(features, end_ids=(end_id,))
    for i in range(3):
        ends = np.flatnonzero(endless.tokens[i] == end_id)
        length = ends[0] + 1 if len(ends) else STEPS
        np.testing.assert_array_equal(stopped.mask[i], np.arange(STEPS) < length)
        np.testing.assert_array_equal(stopped.tokens[i, :length], endless.tokens[i, :length])
        np.testing.assert_allclose(stopped.log_probs[i, :length], endless.log_probs[i, :length], atol=1e-5)
        assert not stopped.tokens[i, length:].any()
        assert not stopped.log_probs[i, length:].any()
    assert stopped.mask[row].sum() == place + 1
    assert stopped.mask.all(axis=1).any()


def test_a_single_token_can_be_asked_for(features):
    np.testing.assert_array_equal(answer(features, max_new_tokens=1).tokens, answer(features).tokens[:, :1])


def test_the_adapter_changes_the_answer(features, adapter):
    assert not np.array_equal(answer(features, adapter).tokens, answer(features).tokens)


def test_a_stop_sequence_ends_a_row_with_its_last_token_and_the_others_go_on(features):
    endless = answer(features)
    row, end = 1, 3
    stop = tuple(int(token) for token in endless.tokens[row, end - 1 : end + 1])
    stopped = answer(features, stop=(stop, (89, 89, 89, 89)))
    assert stopped.mask[row].sum() == end + 1
    np.testing.assert_array_equal(stopped.tokens[row, : end + 1], endless.tokens[row, : end + 1])
    for i in (0, 2):
        pairs = [tuple(endless.tokens[i, j : j + 2].tolist()) for j in range(STEPS - 1)]
        assert stopped.mask[i].sum() == (pairs.index(stop) + 2 if stop in pairs else STEPS)


def test_every_response_is_sampled_by_itself_and_the_key_fixes_them_all(features):
    def draw(seed):
        return responses(features, key=jax.random.key(seed), count=3, temperature=1.0).tokens

    for row in draw(0):
        assert len(np.unique(row, axis=0)) == 3
    np.testing.assert_array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


@pytest.mark.parametrize("how", [{"temperature": 0.5}, {"temperature": 1.0, "top_p": 0.7}], ids=str)
def test_responses_of_one_prefill_are_drawn_from_the_exact_distribution(features, how):
    """Chi-square of 2,000 responses to a prompt; tokens expected fewer than five times make one bin."""
    count = 2000
    sampled = responses(features, key=jax.random.key(7), count=count, max_new_tokens=1, **how)
    logits = plain_logits(MODEL.params, None, MODEL.config, features, TOKENS, MASK)[0, -1]
    expected = np.asarray(jax.nn.softmax(logits / how["temperature"]), np.float64)
    if "top_p" in how:
        falling = np.argsort(-expected)
        together = np.cumsum(expected[falling])
        expected[falling[np.searchsorted(together, how["top_p"]) + 1 :]] = 0
    expected *= count / expected.sum()
    counts = np.bincount(sampled.tokens[0, :, 0], minlength=len(expected))
    assert not counts[expected == 0].any()
    rare = (expected < 5) & (expected > 0)
    often = expected >= 5
    observed = [*counts[often], counts[rare].sum()]
    wanted = np.array([*expected[often], expected[rare].sum()])
    if not rare.any():
        observed, wanted = observed[:-1], wanted[:-1]
    assert len(wanted) > 20
    assert stats.chisquare(observed, wanted * count / wanted.sum()).pvalue > 1e-3


def test_a_temperature_without_a_key_is_an_error(features):
    with pytest.raises(ValueError, match="temperature is 1.0: sampling needs a key"):
        answer(features, temperature=1.0)
