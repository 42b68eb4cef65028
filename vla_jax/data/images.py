"""Images as they lie in data sets: files, bytes inside another file, arrays; decoded when somebody looks."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

# PIL's own limit, from which on it warns of a decompression bomb: a quarter of a gigabyte as RGB.
MAX_PIXELS = 89_478_485

# Orientations that exchange rows and columns.
_LYING = {5, 6, 7, 8}


class UnreadableImageError(ValueError):
    """What is no image, a missing, a broken or an oversized one.

    Args:
      problem: what is wrong, as said of a record.
      remedy: what the user can do about it.
    """

    def __init__(self, problem: str, remedy: str = "replace the file"):
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own.

    Attributes:
      path: the file.
    """

    path: Path

    @property
    def name(self) -> str:
        """What an error calls it."""
        return str(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), from the file's header; see `pixels` for the errors.

        A PNG may say behind its pixels how it is to be turned, so that it is read whole.
        """
        return _size(self.path, self.name)

    def pixels(self) -> UInt8[np.ndarray, "y x 3"]:
        """RGB.

        Raises:
          UnreadableImageError: where there is no such file, or it is no image, a broken one, or one of more
            than `MAX_PIXELS`.
        """
        return np.asarray(self.decoded().picture)

    def decoded(self) -> "Decoded":
        """The image read once, to be asked often; see `pixels` for the errors."""
        return Decoded(_decoded(self.path, self.name), self.name)

    def encoded(self) -> bytes:
        """The file as it is."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class ImageBytes:
    """An encoded image that lies inside another file.

    Attributes:
      content: the encoded image.
      name: what an error calls it.
    """

    content: bytes = field(repr=False)
    name: str = "embedded image"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), from the header; see `pixels` for the errors."""
        return _size(io.BytesIO(self.content), self.name)

    def pixels(self) -> UInt8[np.ndarray, "y x 3"]:
        """RGB.

        Raises:
          UnreadableImageError: where it is no image, a broken one, or one of more than `MAX_PIXELS`.
        """
        return np.asarray(self.decoded().picture)

    def decoded(self) -> "Decoded":
        """The image read once, to be asked often; see `pixels` for the errors."""
        return Decoded(_decoded(io.BytesIO(self.content), self.name), self.name)

    def encoded(self) -> bytes:
        """The bytes as they are."""
        return self.content


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image that is there already.

    Attributes:
      array: RGB, uint8 [y x 3].
      name: what an error calls it.
    """

    array: UInt8[np.ndarray, "y x 3"] = field(repr=False)
    name: str = "array"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.array.shape[:2]
        return height, width

    def pixels(self) -> UInt8[np.ndarray, "y x 3"]:
        """RGB."""
        return self.array

    def decoded(self) -> "Decoded":
        """The same as a picture."""
        return Decoded(Image.fromarray(self.array), self.name)

    def encoded(self) -> bytes:
        """As PNG."""
        return self.decoded().encoded()


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image as PIL holds it, which it takes no copy to resize.

    Attributes:
      picture: upright, RGB.
      name: what an error calls it.
    """

    picture: Image.Image = field(repr=False)
    name: str = "picture"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.picture.height, self.picture.width

    def pixels(self) -> UInt8[np.ndarray, "y x 3"]:
        """RGB."""
        return np.asarray(self.picture)

    def decoded(self) -> "Decoded":
        """Itself."""
        return self

    def encoded(self) -> bytes:
        """As PNG."""
        with io.BytesIO() as file:
            self.picture.save(file, "png")
            return file.getvalue()


def read_image(file: Path) -> UInt8[np.ndarray, "y x 3"]:
    """An image file as RGB; see `ImageFile.pixels`."""
    return ImageFile(file).pixels()


@contextmanager
def _opened(file: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """The image, its header read and its size found harmless."""
    try:
        with warnings.catch_warnings():
            # Its size is checked below; what else PIL warns of does not keep it from reading the image.
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImageError(
                        f"names an image of {image.width}x{image.height} pixels: {name}",
                        f"make it smaller; at most {MAX_PIXELS:,} are decoded",
                    )
                yield image
    except UnreadableImageError:
        raise
    except FileNotFoundError:
        raise UnreadableImageError(f"names an image that is missing: {name}", "restore the file") from None
    except Exception as error:
        # Decoders let through what they stumble on: of every kind, down to faults of their own.
        reason = str(error) or type(error).__name__
        raise UnreadableImageError(f"names an image that cannot be read: {name} ({reason})") from None


def _size(file: Path | io.BytesIO, name: str) -> tuple[int, int]:
    with _opened(file, name) as image:
        # Of TIFF the size is the upright one already.
        lying = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in _LYING
        return (image.width, image.height) if lying else (image.height, image.width)


def _decoded(file: Path | io.BytesIO, name: str) -> Image.Image:
    """The first frame, upright, as RGB; transparency is dropped, as the processors of transformers do."""
    with _opened(file, name) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16") or image.mode in ("I", "F"):
            return Image.fromarray(np.repeat(_narrowed(np.asarray(image), name)[..., None], 3, axis=2))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def _narrowed(wide: np.ndarray, name: str) -> UInt8[np.ndarray, "y x"]:
    """Grey values of 16 bits as 8: PIL's own conversion cuts all above 255 off."""
    if wide.dtype.kind not in "ui" or wide.min() < 0 or wide.max() > 0xFFFF:
        raise UnreadableImageError(f"names an image with grey values beyond 16 bits: {name}")
    return np.round(wide / 257).astype(np.uint8)
