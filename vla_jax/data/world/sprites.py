"""Figures as pixels: supersampled, outlined, cached, ready to be tinted and laid over an image."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image, ImageDraw, ImageFilter

from vla_jax.data.world.figures import FIGURES, Tint

_SUPERSAMPLING = 6
_OUTLINE = (26, 24, 30)
_OUTLINE_WIDTH = 0.035
# A straight edge blurred with deviation s falls below this share at a distance of 1.4 s.
_OUTLINE_SHARE, _OUTLINE_DEVIATION = 0.08, _OUTLINE_WIDTH / 1.4
_REFERENCE_SIDE = 64


@dataclass(frozen=True)
class Sprite:
    """One category at one pixel size; laid over an image as `image * (1 - alpha) + tinted * colour + fixed`.

    Attributes:
      alpha: opacity, from 0 to 1.
      tinted: share of the object's colour, from 0 to `alpha`.
      fixed: what is painted in fixed colours, from 0 to 255, already multiplied with its share.
      mask: pixels that are more than half covered.
      extent: (x0, y0, x1, y1) of `mask` in pixels, x1 and y1 exclusive.
    """

    alpha: Float32[np.ndarray, "y x 1"]
    tinted: Float32[np.ndarray, "y x 1"]
    fixed: Float32[np.ndarray, "y x 3"]
    mask: Bool[np.ndarray, "y x"]
    extent: tuple[int, int, int, int]


@dataclass(frozen=True)
class Silhouette:
    """A figure's geometry in the unit square: (x0, y0, x1, y1) around it, and the area it covers."""

    extent: tuple[float, float, float, float]
    area: float


@cache
def sprite(name: str, side: int) -> Sprite:
    """The figure of category `name` in a square of `side` pixels."""
    canvas = side * _SUPERSAMPLING
    alpha, tint = Image.new("L", (canvas, canvas)), Image.new("L", (canvas, canvas))
    fixed = Image.new("RGB", (canvas, canvas))
    for paint, shape in FIGURES[name]:
        points = [(x * canvas, y * canvas) for x, y in shape]
        share, colour = _split(paint)
        ImageDraw.Draw(alpha).polygon(points, fill=255)
        ImageDraw.Draw(tint).polygon(points, fill=share)
        ImageDraw.Draw(fixed).polygon(points, fill=colour)
    inside = np.asarray(alpha) > 0
    blurred = np.asarray(alpha.filter(ImageFilter.GaussianBlur(canvas * _OUTLINE_DEVIATION)))
    outlined = inside | (blurred > 255 * _OUTLINE_SHARE)
    painted = np.where(inside[..., None], np.asarray(fixed), np.array(_OUTLINE, np.uint8))
    covered = _shrunk(outlined, side)
    mask = covered[..., 0] > 0.5
    return Sprite(
        alpha=covered,
        tinted=_shrunk(np.asarray(tint) / 255, side),
        fixed=_shrunk(painted * outlined[..., None], side),
        mask=mask,
        extent=_extent(mask),
    )


@cache
def silhouette(name: str) -> Silhouette:
    """The geometry of category `name`, whatever its size."""
    reference = sprite(name, _REFERENCE_SIDE)
    x0, y0, x1, y1 = (edge / _REFERENCE_SIDE for edge in reference.extent)
    return Silhouette((x0, y0, x1, y1), float(reference.mask.mean()))


def _split(paint: Tint | tuple[int, int, int]) -> tuple[int, tuple[int, int, int]]:
    """A paint as (share of the object's colour in 1/255, colour added to it)."""
    if not isinstance(paint, Tint):
        return 0, paint
    white = round(255 * max(0.0, paint.shade - 1))
    return round(255 * min(paint.shade, 2 - paint.shade)), (white, white, white)


def _shrunk(canvas: np.ndarray, side: int) -> Float32[np.ndarray, "y x c"]:
    """Means over the supersampled pixels of each pixel."""
    cells = canvas.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING, -1)
    return cells.mean((1, 3), dtype=np.float32)


def _extent(mask: Bool[np.ndarray, "y x"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
