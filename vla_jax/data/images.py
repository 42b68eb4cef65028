"""Reading image files, and fitting images of any shape into the square a vision tower reads, with PIL."""

import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vla_jax.data.schema import Box

# What PIL raises at files that are no image, or a broken one; its decoders let through what they stumble on.
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# CLIP's mean colour: what LLaVA-1.5 pads with, so that padding is 0 once normalised.
_PADDING = (122, 116, 104)


class UnreadableImageError(ValueError):
    """A file that is no image, or a broken one."""


def read_image(file: Path) -> UInt8[np.ndarray, "y x 3"]:
    """An image file as RGB.

    Raises:
      FileNotFoundError: where there is no such file.
      UnreadableImageError: where it is no image that PIL reads, or broken; the message names the file.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise UnreadableImageError(f"{file} ({error})") from None


def fit(image: UInt8[np.ndarray, "y x 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Pads to a square around the centre, then resizes bicubically to [size size 3].

    Source: `image_aspect_ratio: pad` of LLaVA-1.5.
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image
    side = max(height, width)
    left, top = _offsets(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = _PADDING
    square[top : top + height, left : left + width] = image
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))


def fit_box(box: Box, height: int, width: int, size: int) -> Box:
    """Where a box of the original image (pixels) lies after `fit`."""
    left, top = _offsets(height, width)
    scale = size / max(height, width)
    x0, y0, x1, y1 = box
    return (x0 + left) * scale, (y0 + top) * scale, (x1 + left) * scale, (y1 + top) * scale


def _offsets(height: int, width: int) -> tuple[int, int]:
    side = max(height, width)
    return (side - width) // 2, (side - height) // 2
