"""What is hidden: the share that equation 6 says, image tokens alone, fixed by record and try; and noise."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.small_models import tiny_config
from vla_jax.data.batches import Batch
from vla_jax.recipes.blinding import Sights
from vla_jax.rollout import Speaker

CONFIG = tiny_config()
ROWS, TOKENS = 400, 50


def sights(threshold, noise_step=0, *, ids=range(ROWS), padding=3, key=0):
    """Of prompts whose image tokens lie behind padding and two words, before one."""
    count, length = len(ids), padding + 2 + TOKENS + 1
    tokens = np.full((count, length), 7, np.int32)
    tokens[:, padding + 2 : -1] = CONFIG.image_token_id
    mask = np.ones((count, length), bool)
    mask[:, :padding] = False
    empty = np.zeros((count, 1, 2), np.int32)
    images = np.full((count, 6, 6, 3), 128, np.uint8)
    batch = Batch(
        images,
        np.zeros((count, 4), np.float32),
        tokens,
        mask,
        empty,
        empty > 0,
        empty > 0,
        np.array(list(ids), np.uint32),
        np.ones(count, np.float32),
    )
    seen = []

    def see(batch):
        seen.append(np.asarray(batch.images))
        return np.zeros((count, TOKENS, 4), np.float32)

    speaker = Speaker(CONFIG, {}, None, SimpleNamespace(), (2,), see)
    return Sights(speaker, batch, jax.random.key(key), threshold, noise_step), seen


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_so_many_image_tokens_are_hidden_and_nothing_else(threshold):
    sight, _ = sights(threshold)
    keep = np.asarray(sight(1).keep)
    assert keep[:, :5].all() and keep[:, -1].all()
    drawn = keep[:, 5:-1]
    deviation = np.sqrt(threshold * (1 - threshold) / drawn.size)
    assert drawn.mean() == pytest.approx(1 - threshold, abs=4 * deviation)
    # Each place alike, and rows apart.
    assert abs(drawn.mean(axis=0) - (1 - threshold)).max() < 5 * deviation * np.sqrt(TOKENS)
    assert len(np.unique(drawn, axis=0)) > 1
    tokens, visible = sight.counts(1)
    assert (tokens == TOKENS).all()
    np.testing.assert_array_equal(visible, drawn.sum(axis=1))


def test_the_extremes_hide_all_or_nothing():
    assert sights(0.0)[0](1).keep is None
    assert not np.asarray(sights(1.0)[0](1).keep)[:, 5:-1].any()
    np.testing.assert_array_equal(sights(0.0)[0].counts(1)[1], np.full(ROWS, TOKENS))


def test_record_and_try_fix_what_is_hidden_wherever_it_stands():
    first = np.asarray(sights(0.5)[0](1).keep)[:, 5:-1]
    alone = np.asarray(sights(0.5, ids=[7], padding=0)[0](1).keep)[:, 2:-1]
    np.testing.assert_array_equal(alone[0], first[7])
    assert (np.asarray(sights(0.5)[0](2).keep)[:, 5:-1] != first).any(axis=1).all()
    assert (np.asarray(sights(0.5, key=1)[0](1).keep)[:, 5:-1] != first).any(axis=1).all()


def test_noise_is_drawn_for_every_record_and_try_and_images_are_seen_once_without():
    sight, seen = sights(0.0, 500, ids=[1, 2])
    sight(1), sight(2), sight(1)
    first, second = seen
    # At 500 steps √ᾱ is 0.86 and the noise's deviation half the range: little of the grey is left alone.
    assert 40 < first.astype(float).std() < 128
    assert (first != second).mean() > 0.9 and (first[0] != first[1]).mean() > 0.9
    again, seen_again = sights(0.0, 500, ids=[2])
    again(1)
    np.testing.assert_array_equal(seen_again[0][0], first[1])
    masked, seen_masked = sights(0.5)
    masked(1), masked(2)
    assert len(seen_masked) == 1
