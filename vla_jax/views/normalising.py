"""From bytes to what a vision tower expects."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def normalise(
    images: UInt8[Array, "*b y x 3"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Array, "*b y x 3"]:
    """uint8 RGB to float32, scaled to [0, 1], minus `mean`, over `std`: the tower's own statistics."""
    scaled = images.astype(jnp.float32) / 255
    return (scaled - jnp.array(mean)) / jnp.array(std)
