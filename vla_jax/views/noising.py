"""Noise: of a diffusion's forward process over the whole image, or in random rectangles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

_STEPS = 1000
_SMALLEST_BETA, _LARGEST_BETA = 1e-5, 0.5e-2


def cumulative_alpha(step: int, *, reference_compatible: bool = False) -> float:
    """ᾱ_N, the share of an image's variance that is left after `step` = N steps of noise.

    The formula is ᾱ_N = Π_{k=1..N} (1 − β_k), β_k = σ(−6 + 12 k / 1000) (0.5e-2 − 1e-5) + 1e-5: N factors, 1
    for N = 0, √ᾱ_500 = 0.8634. POVID's code spaces its 1000 values of β over −6 to 6 with both ends,
    β_k = σ(−6 + 12 k / 999) …, k = 0..999, and reads the cumulative product at index N: k = 0..N, N + 1
    factors, √ᾱ_500 = 0.8630.

    Args:
      step: N; 0 to 1000 by the formula, 0 to 999 by the code.
      reference_compatible: the code's indices rather than the formula's.

    Raises:
      ValueError: where `step` is outside its range.

    Source: the alignment study, appendix E.1, equations 8 and 9; POVID (arXiv:2402.11411) and its code.
    """
    last = _STEPS - reference_compatible
    if not 0 <= step <= last:
        raise ValueError(f"cumulative_alpha: {step=} must lie in 0..{last}")
    taken = np.arange(0, step + 1) if reference_compatible else np.arange(1, step + 1)
    betas = (_LARGEST_BETA - _SMALLEST_BETA) / (1 + np.exp(6 - 12 * taken / last)) + _SMALLEST_BETA
    return float(np.prod(1 - betas))


@partial(jax.jit, static_argnames=("step", "reference_compatible"))
def diffusion_noise(
    image: UInt8[Array, "y x 3"], key: PRNGKeyArray, step: int = 500, *, reference_compatible: bool = False
) -> UInt8[Array, "y x 3"]:
    """The image after `step` steps of noise at once: √ᾱ x + √(1 − ᾱ) ε on x in [0, 1], before normalisation.

    Values that leave [0, 1] (many: at 500 steps the noise's deviation is half the range) are clipped and all
    are rounded. POVID's code cuts the fraction off towards 0 and wraps modulo 256, so that a little below
    black is almost white. It also adds its noise to the photograph before that is scaled down, which averages
    some of it away; here it is added to the model's input.

    Args:
      image: uint8 RGB.
      key: fixes the noise; draw it from (seed, record).
      step: N, as in `cumulative_alpha`.
      reference_compatible: indices and bytes as in POVID's code.

    Raises:
      ValueError: where `step` is outside its range.

    Source: as for `cumulative_alpha`.
    """
    alpha = cumulative_alpha(step, reference_compatible=reference_compatible)
    noise = jax.random.normal(key, image.shape)
    noised = alpha**0.5 * image.astype(jnp.float32) + 255 * (1 - alpha) ** 0.5 * noise
    if reference_compatible:
        return jnp.trunc(noised).astype(jnp.int32).astype(jnp.uint8)
    return _clipped(noised)


@partial(jax.jit, static_argnames=("rectangles", "sizes"))
def rectangle_noise(
    image: UInt8[Array, "y x 3"],
    key: PRNGKeyArray,
    *,
    rectangles: int = 3,
    std: float = 0.5,
    sizes: tuple[float, float] = (0.1, 0.5),
) -> UInt8[Array, "y x 3"]:
    """Gaussian noise in random rectangles; the rest stays byte for byte.

    Sides are drawn uniformly and rounded to whole pixels, at least one; a rectangle lies uniformly within the
    image. Where rectangles overlap the noise is added once. Values are clipped and rounded.

    Args:
      image: uint8 RGB.
      key: fixes rectangles and noise; draw it from (seed, record).
      rectangles: how many.
      std: deviation of the noise, black to white being 1.
      sizes: bounds of a side's share of the image's side.

    Raises:
      ValueError: where `rectangles` is below 1, or `sizes` out of order or outside (0, 1].

    Source: POPEN, whose perturbed images have noise in three random rectangles; their sizes and the deviation
    are not given there.
    """
    if rectangles < 1 or not 0 < sizes[0] <= sizes[1] <= 1:
        raise ValueError(
            f"rectangle_noise: {rectangles=} must be positive and {sizes=} ordered within (0, 1]"
        )
    size_key, place_key, noise_key = jax.random.split(key, 3)
    sides = jnp.array(image.shape[:2], jnp.float32)
    shares = jax.random.uniform(size_key, (rectangles, 2), minval=sizes[0], maxval=sizes[1])
    spans = jnp.maximum(jnp.round(shares * sides), 1)
    starts = jnp.floor(jax.random.uniform(place_key, (rectangles, 2)) * (sides - spans + 1))
    rows, columns = (
        _between(starts[:, axis], spans[:, axis], size) for axis, size in enumerate(image.shape[:2])
    )
    noised = (rows[:, :, None] & columns[:, None, :]).any(axis=0)
    noise = 255 * std * jax.random.normal(noise_key, image.shape)
    return jnp.where(noised[..., None], _clipped(image.astype(jnp.float32) + noise), image)


def _between(starts: Float[Array, " r"], spans: Float[Array, " r"], size: int) -> Array:
    """Which of 0..size-1 lie in each span [r size]."""
    positions = jnp.arange(size)
    return (positions >= starts[:, None]) & (positions < (starts + spans)[:, None])


def _clipped(levels: Float[Array, "y x 3"]) -> UInt8[Array, "y x 3"]:
    return jnp.clip(jnp.round(levels), 0, 255).astype(jnp.uint8)
