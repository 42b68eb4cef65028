"""Batched, padded, chunked log-probabilities against one unpadded sequence at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import tiny_config, tiny_model
from vla_jax.models import llava, lora
from vla_jax.models.lora import LoraConfig
from vla_jax.scoring import plain, token_log_probs

CONFIG = tiny_config()
PARAMS = tiny_model().params
# An adapter that does something: its B matrices are not zero.
ADAPTER = jax.tree.map(
    lambda x: x + 0.1, lora.initialise(llava.table(CONFIG), LoraConfig(rank=2, alpha=2.0), jax.random.key(1))
)
N, D, WORDS = CONFIG.num_image_tokens, CONFIG.language.hidden_size, CONFIG.language.vocab_size
CANDIDATES = ((0, 0), (1, 0), (0, 1))
PREFIX_LENGTHS, RESPONSE_LENGTHS = (9, 11), ((5, 3), (3, 1))


def draw(count, seed):
    """Ids of words: no padding and no image placeholder among them."""
    return np.random.default_rng(seed).integers(4, WORDS, count)


PROMPTS = [
    np.concatenate([[1], [CONFIG.image_token_id] * N, draw(length - N - 1, length)])
    for length in PREFIX_LENGTHS
]
RESPONSES = [[draw(length, 7 * i + length) for length in row] for i, row in enumerate(RESPONSE_LENGTHS)]
FEATURES = jnp.array(np.random.default_rng(0).normal(size=(2, 2, N, D)), jnp.float32)


def padded(rows=(0, 1), prefix=11, response=5, fill=0):
    """The arguments after `config` of `token_log_probs`; `fill` is the id at padding."""
    tokens, mask = np.full((len(rows), prefix), fill), np.zeros((len(rows), prefix), bool)
    answers, answer_mask = np.full((len(rows), 2, response), fill), np.zeros((len(rows), 2, response), bool)
    for i, row in enumerate(rows):
        tokens[i, -len(PROMPTS[row]) :], mask[i, -len(PROMPTS[row]) :] = PROMPTS[row], True
        for j, ids in enumerate(RESPONSES[row]):
            answers[i, j, : len(ids)], answer_mask[i, j, : len(ids)] = ids, True
    return FEATURES[jnp.array(rows)], *map(jnp.array, (tokens, mask, answers, answer_mask))


# Parameters are arguments: closed over, they would be constants, which XLA folds for seconds.
_score = jax.jit(token_log_probs, static_argnums=(2, 8))


def scored(*arguments, candidates=CANDIDATES):
    return _score(PARAMS, ADAPTER, CONFIG, *arguments, candidates)


@jax.jit
def _every_log_prob(params, adapter, tokens, features):
    valid = jnp.ones((1, len(tokens)), bool)
    states = llava.hidden_states(params, CONFIG, tokens[None], valid, features[None], adapter)
    return jax.nn.log_softmax(llava.logits(params, states)[0])


def directly(tokens, features):
    """log softmax over the vocabulary at every place of one sequence without padding."""
    return np.asarray(_every_log_prob(PARAMS, ADAPTER, tokens, features))


@pytest.fixture(scope="module")
def expected():
    return scored(*padded())


@pytest.mark.smoke
def test_equal_one_unpadded_sequence_at_a_time(expected):
    assert expected.shape == (2, len(CANDIDATES), 5) and expected.dtype == jnp.float32
    for row in range(2):
        for place, (view, response) in enumerate(CANDIDATES):
            prompt, answer = PROMPTS[row], RESPONSES[row][response]
            log_probs = directly(np.concatenate([prompt, answer]), FEATURES[row, view])
            direct = log_probs[len(prompt) - 1 + np.arange(len(answer)), answer]
            np.testing.assert_allclose(expected[row, place, : len(answer)], direct, atol=2e-5)
            assert not expected[row, place, len(answer) :].any()


def test_padding_may_be_longer_and_hold_anything(expected):
    longer = scored(*padded(prefix=17, response=8, fill=5))
    np.testing.assert_allclose(longer[..., :5], expected, atol=2e-5)
    assert not longer[..., 5:].any()


def test_a_row_does_not_depend_on_its_batch_mates(expected):
    for row in range(2):
        np.testing.assert_allclose(scored(*padded(rows=(row,)))[0], expected[row], atol=2e-5)
    np.testing.assert_allclose(scored(*padded(rows=(1, 0))), expected[::-1], atol=2e-5)


def test_a_candidate_does_not_depend_on_the_others(expected):
    np.testing.assert_allclose(scored(*padded(), candidates=CANDIDATES[1:2]), expected[:, 1:2], atol=2e-5)


def test_a_candidate_sees_its_own_view_only(expected):
    features, *tokens = padded()
    changed = scored(features.at[:, 1].add(1.0), *tokens)
    np.testing.assert_array_equal(changed[:, [0, 2]], expected[:, [0, 2]])
    assert (changed[:, 1, :2] != expected[:, 1, :2]).all()


def test_probabilities_of_all_words_sum_to_one():
    features, prefix, prefix_mask, answers, answer_mask = padded(rows=(0,))
    every_word = jnp.arange(WORDS)[None, :, None]
    shown = jnp.ones_like(every_word, bool)
    pairs = tuple((0, word) for word in range(WORDS))
    made = _score(PARAMS, None, CONFIG, features, prefix, prefix_mask, every_word, shown, pairs)
    assert float(jnp.exp(made).sum()) == pytest.approx(1, rel=1e-5)


def test_chunks_change_neither_values_nor_gradients(monkeypatch, expected):
    features, *tokens = padded()
    # Weights that differ, so that a permutation of tokens would show.
    weights = jnp.linspace(-1, 1, expected.size).reshape(expected.shape)

    def slopes_and_values():
        def total(params, adapter, features):
            made = token_log_probs(params, adapter, CONFIG, features, *tokens, CANDIDATES)
            return jnp.sum(weights * made), made

        return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(PARAMS, ADAPTER, features)

    whole_slopes, whole = slopes_and_values()
    monkeypatch.setattr(plain, "_CHUNK", 7)  # 30 tokens: the last chunk is not full
    slopes, values = slopes_and_values()
    np.testing.assert_allclose(values, whole, atol=2e-5)
    for ours, theirs in zip(jax.tree.leaves(slopes), jax.tree.leaves(whole_slopes), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, float(jnp.abs(theirs).max())))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_base_in_half_precision_is_scored_beside_an_adapter_in_full(dtype):
    """As PEFT keeps them; the log-probabilities are float32 all the same."""
    half = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    features, *rest = padded()
    made = _score(half, ADAPTER, CONFIG, features.astype(dtype), *rest, CANDIDATES)
    exact = scored(features, *rest)
    assert made.dtype == jnp.float32
    np.testing.assert_allclose(made, exact, atol=0.1)
    bare = _score(half, None, CONFIG, features.astype(dtype), *rest, CANDIDATES)
    assert np.abs(bare - exact).max() > 0.2
