"""What a model sees of images that are hidden from it: few of their tokens, or noise (BDHS)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt8, UInt32

from vla_jax.data import Batch
from vla_jax.rollout.completions import Sight, Speaker
from vla_jax.views import diffusion_noise, keep_mask

# Set apart from one another, and from what tokens are drawn by.
_MASK, _NOISE = 1, 2


class Sights:
    """What a model sees of a batch's images in each try.

    Args:
      speaker: who sees.
      batch: whose images; NumPy arrays.
      key: of the draws; with the record and the try it fixes them.
      threshold: ρ_th, the share of image tokens that is hidden; 0 hides none.
      noise_step: N, steps of the diffusion that images go through, of 1,000; 0 leaves them as they are.
    """

    def __init__(self, speaker: Speaker, batch: Batch, key: PRNGKeyArray, threshold: float, noise_step: int):
        self._speaker, self._batch, self._key = speaker, batch, key
        self._threshold, self._noise_step = threshold, noise_step
        self._is_image = batch.prefix_mask & (batch.prefix_tokens == speaker.config.image_token_id)
        self._seen: dict[int, Sight] = {}

    def __call__(self, attempt: int) -> Sight:
        """What is seen in this try."""
        if attempt not in self._seen:
            self._seen[attempt] = self._drawn(attempt)
        return self._seen[attempt]

    def counts(self, attempt: int) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
        """How many image tokens each row has, and how many of them are visible in this try."""
        keep = self(attempt).keep
        visible = self._is_image if keep is None else self._is_image & np.asarray(keep)
        return self._is_image.sum(axis=1), visible.sum(axis=1)

    def _drawn(self, attempt: int) -> Sight:
        ids = self._batch.record_ids
        if self._noise_step:
            key = jax.random.fold_in(self._key, _NOISE)
            noised = _noised(key, self._batch.images, ids, attempt, self._noise_step)
            features = self._speaker.see(self._batch._replace(images=noised))
        elif self._seen:
            features = next(iter(self._seen.values())).features
        else:
            features = self._speaker.see(self._batch)
        if not self._threshold:
            return Sight(features, None)
        key = jax.random.fold_in(self._key, _MASK)
        return Sight(
            features, visible_tokens(key, self._is_image, ids, attempt, features.shape[1], self._threshold)
        )


@partial(jax.jit, static_argnames="step")
def _noised(
    key: PRNGKeyArray,
    images: UInt8[Array, "b *k y x 3"],
    record_ids: UInt32[Array, " b"],
    attempt: Int[Array, ""],
    step: int,
) -> UInt8[Array, "b *k y x 3"]:
    """Every image, and of one in tiles every tile, after so many steps of diffusion."""

    def row(image: Array, record_id: Array) -> Array:
        own = jax.random.fold_in(jax.random.fold_in(key, record_id), attempt)
        flat = image.reshape(-1, *image.shape[-3:])
        noised = jax.vmap(partial(diffusion_noise, step=step))(flat, jax.random.split(own, len(flat)))
        return noised.reshape(image.shape)

    return jax.vmap(row)(images, record_ids)


@partial(jax.jit, static_argnames=("drawn", "threshold"))
def visible_tokens(
    key: PRNGKeyArray,
    is_image: Bool[Array, "b s"],
    record_ids: UInt32[Array, " b"],
    attempt: Int[Array, ""],
    drawn: int,
    threshold: float,
) -> Bool[Array, "b s"]:
    """False at image tokens that are hidden.

    Args:
      key: with the record and the try it fixes them.
      is_image: places of the prompts that hold image tokens.
      record_ids: what numbers each row.
      attempt: number of the try.
      drawn: draws a row; its n-th image token has the n-th, wherever it stands.
      threshold: the share that is hidden.

    Source: the alignment study, equation 6.
    """

    def row(places: Array, record_id: Array) -> Array:
        own = jax.random.fold_in(jax.random.fold_in(key, record_id), attempt)
        keep = keep_mask(own, drawn, threshold)
        return ~places | keep[jnp.cumsum(places) - 1]

    return jax.vmap(row)(is_image, record_ids)
