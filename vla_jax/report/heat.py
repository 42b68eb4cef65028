"""Draws a map of numbers over the image they belong to."""

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8

# The few largest values would else leave the rest black.
_BRIGHTEST = 99.0


def heat_over(
    image: UInt8[np.ndarray, "y x 3"], values: Float[np.ndarray, "y x"]
) -> UInt8[np.ndarray, "y x 3"]:
    """The image in faint grey with the map's values over it, brighter for larger ones.

    Args:
      image: RGB.
      values: 0 or more, one a pixel; scaled so that the brightest hundredth is white.
    """
    brightest = max(float(np.percentile(values, _BRIGHTEST)), np.finfo(np.float32).tiny)
    heat = matplotlib.colormaps["inferno"](np.clip(values / brightest, 0, 1))[..., :3]
    grey = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1) / 255
    return np.round(255 * np.clip(0.75 * heat + 0.35 * grey, 0, 1)).astype(np.uint8)
