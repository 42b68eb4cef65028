"""Beam search over forks: the likeliest of all responses, where beams are enough to see them all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rollout.small_prompts import MASK, MODEL, TOKENS, image_tokens
from vla_jax.models.compute import Compute
from vla_jax.rollout import Beams, Sampling, decode, prefill, search
from vla_jax.rollout.plain import plain_logits

LENGTH = 3


def searched(beams, sampling, compute=Compute()):  # noqa: B008 (immutable)
    prefilled = prefill(MODEL.params, None, MODEL.config, image_tokens(), TOKENS, MASK, compute=compute)
    return search(MODEL.params, None, MODEL.config, prefilled, sampling, beams, compute)


@pytest.mark.smoke
@pytest.mark.parametrize("unroll", [False, True])
def test_scores_and_log_probs_are_a_whole_forwards_and_fall(unroll):
    beams = Beams(4, length_penalty=0.5)
    made, scores = searched(beams, Sampling(LENGTH), Compute(unroll=unroll))
    assert made.tokens.shape == (3, 4, LENGTH) and made.mask.all()
    for beam in range(4):
        tokens = np.concatenate([TOKENS, made.tokens[:, beam]], axis=1)
        mask = np.concatenate([MASK, made.mask[:, beam]], axis=1)
        logits = plain_logits(MODEL.params, None, MODEL.config, image_tokens(), tokens, mask)
        said = jax.nn.log_softmax(logits[:, TOKENS.shape[1] - 1 : -1])
        log_probs = jnp.take_along_axis(said, made.tokens[:, beam, :, None], axis=2)[..., 0]
        np.testing.assert_allclose(made.log_probs[:, beam], log_probs, atol=1e-5)
        np.testing.assert_allclose(scores[:, beam], log_probs.sum(1) / LENGTH**0.5, atol=1e-4)
    assert (jnp.diff(scores, axis=1) < 0).all()
    assert len({tuple(row) for row in made.tokens[0].tolist()}) == 4


def test_with_beams_for_every_first_token_the_likeliest_pair_is_found():
    words = MODEL.config.language.vocab_size
    made, _ = searched(Beams(words), Sampling(2))
    logits = plain_logits(MODEL.params, None, MODEL.config, image_tokens()[:1], TOKENS[:1], MASK[:1])
    first = jax.nn.log_softmax(logits[0, -1])
    tokens = np.concatenate([np.tile(TOKENS[:1], (words, 1)), np.arange(words)[:, None]], axis=1)
    mask = np.ones(tokens.shape, bool) & np.concatenate(
        [np.tile(MASK[:1], (words, 1)), tokens[:, -1:] >= 0], 1
    )
    image = jnp.tile(image_tokens()[:1], (words, 1, 1))
    logits = plain_logits(MODEL.params, None, MODEL.config, image, tokens.astype(np.int32), mask)
    both = first[:, None] + jax.nn.log_softmax(logits[:, -1])
    best = np.unravel_index(int(both.argmax()), both.shape)
    assert tuple(made.tokens[0, 0].tolist()) == best


def test_one_beam_is_greedy_and_ends_where_greedy_ends():
    prefilled = prefill(MODEL.params, None, MODEL.config, image_tokens(), TOKENS, MASK)
    endless = decode(MODEL.params, None, MODEL.config, prefilled, Sampling(5))
    sampling = Sampling(5, end_ids=(int(endless.tokens[1, 0, 2]),))
    greedy = decode(MODEL.params, None, MODEL.config, prefilled, sampling)
    made, _ = searched(Beams(1, early_stopping=True), sampling)
    ended = greedy.mask.sum(-1)[:, 0] < 5
    assert ended[1]
    for row in np.flatnonzero(ended):
        np.testing.assert_array_equal(made.tokens[row], greedy.tokens[row])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0; a search has at least 1 beam"),
        (
            {"num_beams": 2, "early_stopping": "soon"},
            "early_stopping is 'soon'; it is True, False or 'never'",
        ),
    ],
)
def test_what_cannot_be_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        Beams(**fields)


@pytest.mark.parametrize("fields", [{"temperature": 1.0}, {"top_k": 3}, {"top_p": 0.5}], ids=str)
def test_a_search_does_not_sample(fields):
    with pytest.raises(ValueError, match="beams are searched, not sampled"):
        searched(Beams(2), Sampling(2, **fields))


def test_a_search_begins_at_one_place():
    starts = np.repeat(TOKENS.shape[1], 6).reshape(3, 2)
    prefilled = prefill(MODEL.params, None, MODEL.config, image_tokens(), TOKENS, MASK, starts=starts)
    with pytest.raises(ValueError, match="one place of a row, and these were read for 2; give prefill one"):
        search(MODEL.params, None, MODEL.config, prefilled, Sampling(2), Beams(2))
