"""Removing an object with a fill that needs no weights."""

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, UInt8

from vla_jax.views.multigrid import harmonic

_GREY = 127.5


@partial(jax.jit, static_argnames=("dilation", "smoothing"))
def remove_object(
    image: UInt8[Array, "y x 3"], mask: Bool[Array, "y x"], *, dilation: int = 3, smoothing: int = 3
) -> UInt8[Array, "y x 3"]:
    """The image without what `mask` covers: each of its pixels becomes the mean of its four neighbours.

    That is the harmonic fill: Laplace's equation per channel, with the surroundings as boundary values and
    no flow over the image border. It has no extremes of its own, so it never leaves the colours around it.
    Outside the (dilated) mask, and everywhere where the mask is empty, the image stays byte for byte. A mask
    of the whole image gives mid-grey.

    Args:
      image: uint8 RGB.
      mask: the object.
      dilation: pixels by which the mask grows to every side first (a square), so that no rim of the object is
        left to be smeared in.
      smoothing: the boundary values are means of the unmasked pixels within this many rows and columns;
        0 takes the adjoining pixels as they are, whose noise then shows as streaks.

    Raises:
      ValueError: where `dilation` or `smoothing` is negative.

    Source: stands in for the inpainting network of AdaViP (LaMa). The biharmonic fill, the usual smoother
    choice, was tried and left out: in large holes it overshoots by up to a hundred levels and more.
    """
    if dilation < 0 or smoothing < 0:
        raise ValueError(f"remove_object: {dilation=} and {smoothing=} must not be negative")
    hole = _windows(mask, dilation, jnp.logical_or) if dilation else mask
    known = ~hole
    values = rearrange(image.astype(jnp.float32), "y x c -> c y x")
    boundary = _known_means(values, known, smoothing) if smoothing else values
    overall = jnp.sum(values * known, axis=(1, 2), keepdims=True) / jnp.maximum(known.sum(), 1)
    start = jnp.where(known.any(), overall, _GREY)
    filled = harmonic(jnp.where(hole, start, boundary), hole)
    bytes_filled = jnp.clip(jnp.round(filled), 0, 255).astype(jnp.uint8)
    return jnp.where(hole[..., None], rearrange(bytes_filled, "c y x -> y x c"), image)


def _known_means(
    values: Float[Array, "c y x"], known: Bool[Array, "y x"], radius: int
) -> Float[Array, "c y x"]:
    """Means of the known pixels of the window around each pixel; 0 where there is none."""
    sums = _windows(values * known, radius, jnp.add)
    return sums / jnp.maximum(_windows(known.astype(jnp.float32), radius, jnp.add), 1)


def _windows(values: Array, radius: int, join: Callable[[Array, Array], Array]) -> Array:
    """`values` joined over the square window of this radius around each pixel, what lies outside being 0."""
    for axis in (-2, -1):
        size = values.shape[axis]
        margin = [(0, 0)] * values.ndim
        margin[axis] = (radius, radius)
        padded = jnp.pad(values, margin)
        values = reduce(
            join, [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * radius + 1)]
        )
    return values
