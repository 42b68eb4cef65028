"""From bytes to what a vision tower expects."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

# OpenAI CLIP's statistics, used by every LLaVA.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(images: UInt8[Array, "*b y x 3"]) -> Float[Array, "*b y x 3"]:
    """uint8 RGB to float32, scaled to [0, 1], minus CLIP's mean, over CLIP's standard deviation."""
    scaled = images.astype(jnp.float32) / 255
    return (scaled - jnp.array(_MEAN)) / jnp.array(_STD)
