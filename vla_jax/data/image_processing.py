"""From an image of any shape to the uint8 tiles a vision tower reads, as a checkpoint's processor makes them.

Equal to the PIL image processors of transformers, but for the arithmetic that follows: scaling to [0, 1] and
normalising are done on the device, by what `pixel_statistics` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Bool, UInt8
from PIL import Image

from vla_jax.data.anyres import Size, best_resolution, fitted_size
from vla_jax.data.preprocessor_config import (
    read_fields,
    read_pair,
    read_pinpoints,
    read_resample,
    read_size,
    read_triple,
    unsupported,
)
from vla_jax.data.schema import Box

# A larger image is resized in parts.
_PIXELS_AT_ONCE = 2**26


@dataclass(frozen=True)
class ImageProcessor:
    """Pads, resizes and crops an image, in this order; with `pinpoints`, cuts it into tiles instead.

    Attributes:
      size: what to resize to: the shortest edge, aspect kept, or (height, width); None leaves the size.
      crop: (height, width) cut from the middle, black around an image that is smaller; None crops nothing.
      pad_to_square: colour to pad with to a square, the image in the middle; None pads nothing.
      resample: filter, one of PIL's `Image.Resampling`.
      pinpoints: resolutions (height, width) of AnyRes, see anyres.py; multiples of the tile's side.

    Raises:
      ValueError: where tiles would come out in different sizes.
    """

    size: int | Size | None
    crop: Size | None = None
    pad_to_square: tuple[int, int, int] | None = None
    resample: int = Image.Resampling.BICUBIC
    pinpoints: tuple[Size, ...] = ()

    def __post_init__(self) -> None:
        height, width = self.tile_size
        if not self.pinpoints:
            return
        if height != width or self.size not in (height, (height, width)) or self.pad_to_square:
            raise ValueError(
                f"pinpoints need one square tile and no padding to a square, got {self}; set size and crop "
                "(in a checkpoint: size and crop_size) to the side the vision tower reads"
            )
        if any(side % height for pinpoint in self.pinpoints for side in pinpoint):
            raise ValueError(
                f"pinpoints (in a checkpoint: image_grid_pinpoints) are {self.pinpoints}; make each a "
                f"multiple of the tile's side, {height}"
            )

    @classmethod
    def square(cls, size: int, colour: tuple[int, int, int] = (122, 116, 104)) -> "ImageProcessor":
        """Padded with CLIP's mean colour, then [size size]: `image_aspect_ratio: pad` of LLaVA-1.5."""
        return cls((size, size), pad_to_square=colour)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "ImageProcessor":
        """From the contents of a checkpoint's preprocessor_config.json or processor_config.json.

        Raises:
          ValueError: where it asks for what is not supported; the message names the field.
        """
        kind, fields = read_fields(config)
        size, resample = read_size(fields), read_resample(fields)
        if kind == "LlavaNextImageProcessor":
            # It reads both sizes even where do_resize and do_center_crop are false: the base image is resized
            # to the one, the tiles are cut in the other.
            tile = read_pair(fields, "crop_size")
            if size not in (tile[0], tile) or tile[0] != tile[1]:
                raise unsupported(fields, "crop_size", f"a square as large as size, {fields['size']}")
            return cls(size, tile, None, resample, read_pinpoints(fields))
        crop = read_pair(fields, "crop_size") if fields["do_center_crop"] else None
        pads = kind == "LlavaImageProcessor" and fields["do_pad"]
        colour = _colour(read_triple(fields, "image_mean")) if pads else None
        return cls(size if fields["do_resize"] else None, crop, colour, resample)

    def to_dict(self, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
        """The preprocessor_config.json with which transformers does the same and normalises by `mean`, `std`.

        Raises:
          ValueError: where images are padded with another colour than the mean: it has no field of its own.
        """
        if self.pad_to_square not in (None, _colour(mean)):
            raise ValueError(
                f"pad_to_square is {self.pad_to_square}, but a LlavaImageProcessor can only pad with the "
                f"colour of its mean, {_colour(mean)}; pad with that"
            )
        size = self.size or self.tile_size
        return {
            "image_processor_type": "LlavaNextImageProcessor" if self.pinpoints else "LlavaImageProcessor",
            "do_convert_rgb": True,
            "do_pad": bool(self.pad_to_square or self.pinpoints),
            "do_resize": self.size is not None,
            "size": {"shortest_edge": size} if isinstance(size, int) else _named(size),
            "resample": int(self.resample),
            "do_center_crop": self.crop is not None,
            "crop_size": _named(self.tile_size),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [float(channel) for channel in mean],
            "image_std": [float(channel) for channel in std],
        } | ({"image_grid_pinpoints": [list(each) for each in self.pinpoints]} if self.pinpoints else {})

    @property
    def tile_size(self) -> Size:
        """(height, width) of every tile."""
        if self.crop is not None:
            return self.crop
        if isinstance(self.size, tuple):
            return self.size
        if self.size is None or not (self.pad_to_square or self.pinpoints):
            raise ValueError(
                f"size {self.size} without a crop gives every image a tile of its own shape; set size to "
                "(height, width), or crop (in a checkpoint: do_center_crop and crop_size)"
            )
        return self.size, self.size

    def __call__(self, image: Image.Image | UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "tiles y x 3"]:
        """An RGB image as one tile [1 y x 3]; with `pinpoints` the image, then its tiles row by row."""
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        if self.pinpoints:
            return np.concatenate([self._resize(picture, *self.tile_size)[None], self._tiles(picture)])
        top, left, height, width = self._padded(picture.height, picture.width)
        resized = self._resized(height, width)
        if self.pad_to_square:
            if picture.width == width and resized[0] == resized[1]:
                # PIL goes along the rows first too, but through those of one colour as well.
                picture = picture.resize((resized[1], picture.height), self.resample)
                width = resized[1]
            square = Image.new("RGB", (width, height), self.pad_to_square)
            square.paste(picture, (left, top))
            picture = square
        return self._resize_and_crop(picture, *resized)[None]

    def fit_box(self, box: Box, height: int, width: int) -> Box:
        """Where a box of an image [height width] (pixels) lies in the first tile.

        Clipped to the tile: a box of which the crop leaves nothing has no area.
        """
        top, left, height, width = self._padded(height, width)
        resized, tile = self._resized(height, width), self.tile_size

        def place(position: float, scale: float, before: int, after: int) -> float:
            return min(max(position * scale - (before - after) // 2, 0.0), float(after))

        x0, x1 = (place(x + left, resized[1] / width, resized[1], tile[1]) for x in (box[0], box[2]))
        y0, y1 = (place(y + top, resized[0] / height, resized[0], tile[0]) for y in (box[1], box[3]))
        return x0, y0, x1, y1

    def fit_mask(self, mask: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
        """A mask of an image's pixels as it lies in the first tile; False around the image."""
        colours = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
        black = replace(self, pad_to_square=(0, 0, 0)) if self.pad_to_square else self
        return black(colours)[0][..., 0] > 127

    def _padded(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, height, width): where the image lies, and how large what it lies in is."""
        if not self.pad_to_square:
            return 0, 0, height, width
        side = max(height, width)
        return (side - height) // 2, (side - width) // 2, side, side

    def _resized(self, height: int, width: int) -> Size:
        """(height, width) before the crop."""
        if self.pinpoints:
            return self.tile_size
        if not isinstance(self.size, int):
            return self.size or (height, width)
        shortest = min(height, width)
        return int(self.size * height / shortest), int(self.size * width / shortest)

    def _resize(self, picture: Image.Image, height: int, width: int) -> UInt8[np.ndarray, "y x 3"]:
        return np.asarray(picture.resize((width, height), self.resample))

    def _resize_and_crop(self, picture: Image.Image, height: int, width: int) -> UInt8[np.ndarray, "y x 3"]:
        """The middle of the image resized to [height width]."""
        rows, columns = self.tile_size
        if height * width <= _PIXELS_AT_ONCE:
            return _middle(_middle(self._resize(picture, height, width), rows, axis=0), columns, axis=1)
        # A long thin image whose aspect is kept can grow to gigabytes. PIL resizes such a one along the rows
        # first, so that the crop can come between and only strips need be there at once.
        image = _middle(self._resize(picture, picture.height, width), columns, axis=1)
        step = max(1, _PIXELS_AT_ONCE // height)
        strips = [Image.fromarray(image[:, start : start + step]) for start in range(0, columns, step)]
        resized = (_middle(self._resize(strip, height, strip.width), rows, axis=0) for strip in strips)
        return np.concatenate(list(resized), axis=1)

    def _tiles(self, picture: Image.Image) -> UInt8[np.ndarray, "tiles y x 3"]:
        """The image in its best resolution, black around it, cut into tiles."""
        height, width = picture.height, picture.width
        best = best_resolution(height, width, self.pinpoints)
        rows, columns = fitted_size(height, width, best)
        canvas = np.zeros((*best, 3), np.uint8)
        top, left = (best[0] - rows) // 2, (best[1] - columns) // 2
        canvas = _placed(self._resize(picture, rows, columns), top, left, canvas)
        side = self.tile_size[0]
        return rearrange(canvas, "(r y) (c x) rgb -> (r c) y x rgb", y=side, x=side)


def _placed(
    image: UInt8[np.ndarray, "_ _ 3"], top: int, left: int, canvas: UInt8[np.ndarray, "y x 3"]
) -> UInt8[np.ndarray, "y x 3"]:
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def _middle(image: UInt8[np.ndarray, "_ _ 3"], size: int, axis: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """`size` rows (axis 0) or columns (axis 1) from the middle, black around what is smaller."""
    spare = image.shape[axis] - size
    if not spare:
        return image
    if spare > 0:
        return image.take(range(spare // 2, spare // 2 + size), axis)
    before = -(spare // 2)
    return np.pad(image, [(before, -spare - before) if axis == each else (0, 0) for each in range(3)])


def _colour(mean: Sequence[float]) -> tuple[int, int, int]:
    """What LLaVA pads with: cut to whole numbers, not rounded."""
    red, green, blue = (int(channel * 255) for channel in mean)
    return red, green, blue


def _named(size: Size) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}
