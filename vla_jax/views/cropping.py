"""Random crops (mDPO's conditional view)."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8


@partial(jax.jit, static_argnames=("area", "aspect"))
def random_resized_crop(
    image: UInt8[Array, "y x 3"],
    key: PRNGKeyArray,
    *,
    area: tuple[float, float] = (0.01, 0.2),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> UInt8[Array, "y x 3"]:
    """A random part of the image, resized bilinearly to the image's own size.

    Args:
      image: uint8 RGB.
      key: fixes the crop; draw it from (seed, record), so that policy and reference see the same one.
      area: bounds of the crop's share of the image, drawn uniformly and always kept.
      aspect: bounds of its width / height, drawn log-uniformly between those of them with which a crop of
        that share fits into the image; the nearest that fits where none does.

    Raises:
      ValueError: where a bound is out of order, or an area outside (0, 1].

    Source: mDPO (arXiv:2406.11839), section 4.1: 1-20 % of the image.
    """
    if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
        raise ValueError(
            f"random_resized_crop: {area=} and {aspect=} must be ordered and positive, area <= 1"
        )
    height, width = image.shape[:2]
    area_key, aspect_key, x_key, y_key = jax.random.split(key, 4)
    share = jax.random.uniform(area_key, minval=area[0], maxval=area[1])
    fitting = share * width / height, width / (share * height)
    bounds = jnp.log(jnp.clip(jnp.array(aspect), *fitting))
    ratio = jnp.exp(jax.random.uniform(aspect_key, minval=bounds[0], maxval=bounds[1]))
    crop_width = jnp.minimum(jnp.sqrt(share * height * width * ratio), width)
    crop_height = jnp.minimum(jnp.sqrt(share * height * width / ratio), height)
    left = jax.random.uniform(x_key) * (width - crop_width)
    top = jax.random.uniform(y_key) * (height - crop_height)
    return resized_crop(image, jnp.stack([left, top, left + crop_width, top + crop_height]))


@jax.jit
def resized_crop(image: UInt8[Array, "y x 3"], box: Float[Array, "4"]) -> UInt8[Array, "y x 3"]:
    """A part of the image, resized bilinearly to the image's own size.

    Pixels beside the part count at its rim, as they do in PIL's `resize(..., box=box)`.

    Args:
      image: uint8 RGB.
      box: (x0, y0, x1, y1) in pixels, within the image; need not be whole numbers.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box
    scale = jnp.stack([height / (bottom - top), width / (right - left)])
    resized = jax.image.scale_and_translate(
        image.astype(jnp.float32),
        image.shape,
        (0, 1),
        scale,
        -jnp.stack([top, left]) * scale,
        method="bilinear",
        antialias=False,
    )
    return jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)
