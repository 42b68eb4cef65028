"""Reading image files with PIL."""

import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

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
