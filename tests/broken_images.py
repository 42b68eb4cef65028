"""Files that only look like images, as downloads and disks leave them."""

import io
import zlib

import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


def encoded(image, kind="png", **options):
    """An image as the content of a file."""
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def half_a_jpeg():
    """A photograph whose download stopped."""
    return encoded(Image.fromarray(PIXELS), "jpeg")[:400]


def bomb(side):
    """A PNG whose header says that it is large."""
    header = b"IHDR" + side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    chunk = (13).to_bytes(4) + header + zlib.crc32(header).to_bytes(4)
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded(Image.fromarray(PIXELS))[33:]
