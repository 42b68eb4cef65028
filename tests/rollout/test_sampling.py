"""Sampling against a model that recomputes everything at every step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.small_models import tiny_model
from vla_jax.models import LoraConfig, llava, lora
from vla_jax.rollout import sample
from vla_jax.scoring import token_log_probs

MODEL = tiny_model()
IMAGE = MODEL.config.image_token_id
STEPS = 6


def left_padded(*prompts):
    """Tokens and mask of prompts of any lengths."""
    length = max(map(len, prompts))
    tokens = np.array([[0] * (length - len(prompt)) + prompt for prompt in prompts], np.int32)
    mask = np.array([[False] * (length - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    return tokens, mask


TOKENS, MASK = left_padded(
    [1, *[IMAGE] * 4, 70, 80],
    [1, 50, 60, *[IMAGE] * 4, 9, 8],
    [1, *[IMAGE] * 4, 5],
)


@pytest.fixture(scope="module")
def features():
    pixels = np.random.default_rng(0).normal(size=(3, 24, 24, 3)).astype(np.float32)
    return jax.jit(llava.image_features, static_argnums=1)(MODEL.params, MODEL.config, pixels)


@pytest.fixture(scope="module")
def adapter():
    """An adapter that has been trained somewhere."""
    fresh = lora.initialise(
        llava.table(MODEL.config), LoraConfig(targets="language/.*[qv]_proj"), jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), fresh)


def answer(features, adapter=None, end_ids=(), max_new_tokens=STEPS, **how):
    return sample(
        MODEL.params,
        adapter,
        MODEL.config,
        features,
        TOKENS,
        MASK,
        max_new_tokens=max_new_tokens,
        end_ids=end_ids,
        **how,
    )


@jax.jit
def plain_logits(adapter, features, tokens, mask):
    """Logits of a whole sequence, nothing cached."""
    states = llava.hidden_states(MODEL.params, MODEL.config, tokens, mask, features, adapter)
    return llava.logits(MODEL.params, states)


@pytest.mark.smoke
def test_greedy_tokens_are_the_likeliest_of_a_full_recomputation_at_every_step(features):
    sampled = answer(features)
    room = np.zeros((3, STEPS), np.int32)
    tokens, mask = np.concatenate([TOKENS, room], 1), np.concatenate([MASK, room.astype(bool)], 1)
    for place in range(TOKENS.shape[1], tokens.shape[1]):
        tokens[:, place] = plain_logits(None, features, tokens, mask)[:, place - 1].argmax(-1)
        mask[:, place] = True
    np.testing.assert_array_equal(sampled.tokens, tokens[:, -STEPS:])
    assert sampled.mask.all()


@pytest.mark.parametrize(("adapted", "temperature"), [(False, 0.0), (True, 0.0), (True, 0.7)])
def test_log_probs_are_the_scorers_at_temperature_1(features, adapter, adapted, temperature):
    adapter = adapter if adapted else None
    sampled = answer(features, adapter, temperature=temperature, key=jax.random.key(0))
    scored = jax.jit(partial(token_log_probs, config=MODEL.config, candidates=((0, 0),)))(
        MODEL.params,
        adapter,
        features=features[:, None],
        prefix_tokens=TOKENS,
        prefix_mask=MASK,
        response_tokens=sampled.tokens[:, None],
        response_mask=sampled.mask[:, None],
    )
    np.testing.assert_allclose(sampled.log_probs, scored[:, 0], atol=1e-4)


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


def test_every_row_is_sampled_by_itself_and_the_key_fixes_them_all(features):
    def draw(seed):
        return sample(
            MODEL.params,
            None,
            MODEL.config,
            jnp.repeat(features[:1], 3, axis=0),
            np.repeat(TOKENS[:1], 3, axis=0),
            np.repeat(MASK[:1], 3, axis=0),
            max_new_tokens=STEPS,
            end_ids=(),
            temperature=1.0,
            key=jax.random.key(seed),
        ).tokens

    assert len(np.unique(draw(0), axis=0)) == 3
    np.testing.assert_array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_first_tokens_are_drawn_from_the_softmax_at_that_temperature(features, temperature):
    """Chi-square of 2,000 rows; tokens expected fewer than five times make one bin."""
    rows = 2000
    sampled = sample(
        MODEL.params,
        None,
        MODEL.config,
        jnp.repeat(features[:1], rows, axis=0),
        np.repeat(TOKENS[:1], rows, axis=0),
        np.repeat(MASK[:1], rows, axis=0),
        max_new_tokens=1,
        end_ids=(),
        temperature=temperature,
        key=jax.random.key(7),
    )
    logits = plain_logits(None, features, TOKENS, MASK)[0, -1] / temperature
    expected = rows * np.asarray(jax.nn.softmax(logits), np.float64)
    counts = np.bincount(sampled.tokens[:, 0], minlength=len(expected))
    rare = expected < 5
    observed = [*counts[~rare], counts[rare].sum()]
    wanted = np.array([*expected[~rare], expected[rare].sum()])
    assert len(wanted) > 50
    assert stats.chisquare(observed, wanted * rows / wanted.sum()).pvalue > 1e-3


@pytest.mark.parametrize(
    "how", [{"temperature": 1.0}, {"temperature": -0.1, "key": jax.random.key(0)}], ids=str
)
def test_a_temperature_without_a_key_or_below_zero_is_an_error(features, how):
    with pytest.raises(ValueError, match="temperature=.* must be 0, or positive with a key"):
        answer(features, **how)
