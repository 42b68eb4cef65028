"""Masks as COCO writes them, in polygons or in run lengths, checked before compiled code reads them."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from vla_jax.data.rows import RowError


def from_runs(counts: Any, height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """Run lengths, a list or compressed to text, as a mask.

    Raises:
      RowError: where they are not those of a mask of this size.
    """
    # Compiled; most runs read no masks.
    from pycocotools import mask as coco

    size = [height, width]
    try:
        if isinstance(counts, list):
            counts = coco.frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
        compressed = counts.encode() if isinstance(counts, str) else counts
        mask = coco.decode({"size": size, "counts": compressed})
        # Where the runs end early, the decoder leaves the rest of the mask as it found it in memory.
        whole = coco.encode(mask)["counts"] == compressed
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise RowError(
            f"has a mask whose run lengths are not those of {height} x {width} pixels",
            "write its size and counts as pycocotools.mask.encode gives them",
        )
    return mask.astype(bool)


def from_polygons(polygons: Any, height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """The union of polygons, each a list [x0, y0, x1, y1, ...] of at least three corners, as a mask.

    Corners may leave the image, by as much as it is long: the decoder's memory grows with their distance.

    Raises:
      RowError: where they are no such polygons.
    """
    from pycocotools import mask as coco

    try:
        corners = [np.array(polygon, float) for polygon in polygons]
    except (TypeError, ValueError, OverflowError):
        corners = []
    reach = max(height, width)
    if not corners or not all(_is_polygon(polygon, reach) for polygon in corners):
        raise RowError(
            "has a 'segmentation' with what is no polygon [x0, y0, x1, y1, x2, y2, ...] about the image",
            "correct it or remove the record",
        )
    runs = coco.frPyObjects([polygon.tolist() for polygon in corners], height, width)
    return coco.decode(coco.merge(runs)).astype(bool)


def _is_polygon(corners: np.ndarray, reach: int) -> bool:
    even = corners.ndim == 1 and corners.size >= 6 and corners.size % 2 == 0
    # Not a number compares false.
    return even and bool(((-reach <= corners) & (corners <= 2 * reach)).all())
