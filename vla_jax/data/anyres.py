"""Where the tiles and tokens of an image lie under AnyRes (Liu et al. 2024, the LLaVA-NeXT blog).

An image is resized, its aspect kept, into the best of a few resolutions, its pinpoints, and cut into square
tiles; the model reads those after the base tile, the whole image squeezed into one. The rounding is that of
transformers (image_processing_utils.py, modeling_llava_next.py): one token more or less, and a checkpoint's
answers change.
"""

import math
from collections.abc import Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Int

Size = tuple[int, int]  # (height, width) in pixels


def best_resolution(height: int, width: int, pinpoints: Sequence[Size]) -> Size:
    """The pinpoint (height, width) that keeps most pixels of the image, then wastes least; then the first."""

    def fitness(pinpoint: Size) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=fitness)


def fitted_size(height: int, width: int, target: Size) -> Size:
    """The (height, width) an image is resized to so that it fills `target` in one direction."""
    scale_y, scale_x = target[0] / height, target[1] / width
    if scale_x < scale_y:
        return min(math.ceil(height * scale_x), target[0]), target[1]
    return target[0], min(math.ceil(width * scale_y), target[1])


def grid(height: int, width: int, pinpoints: Sequence[Size], tile: int) -> tuple[int, int]:
    """(rows, columns) of the tiles of an image, the base tile not counted; a tile's side is in pixels."""
    best = best_resolution(height, width, pinpoints)
    return best[0] // tile, best[1] // tile


def layout(
    height: int, width: int, pinpoints: Sequence[Size], tile: int, patches: int
) -> Int[np.ndarray, " t"]:
    """The order in which a model reads an image's features: what `pack_image_features` of transformers does.

    Args:
      height, width: of the original image, in pixels.
      pinpoints: resolutions (height, width) to choose from, in pixels.
      tile: side of a tile, in pixels.
      patches: patches along a tile's side, so that a tile has n = patches^2 features.

    Returns:
      int32 [t], t the number of the image's tokens: rows of a table whose row 0 is the newline's vector and
      whose row 1 + k is the k-th feature, the base tile's n first, then the grid's tiles row by row. The base
      tile comes first; then, without the padding, the grid's rows of patches, a newline after each. Where an
      image is much longer than any pinpoint, every column may count as padding, so that only newlines follow;
      or every row, so that nothing does.
    """
    rows, columns = grid(height, width, pinpoints, tile)
    features = np.arange(1, 1 + (1 + rows * columns) * patches**2, dtype=np.int32)
    base, tiles = np.split(features, [patches**2])
    table = rearrange(tiles, "(r c y x) -> (r y) (c x)", r=rows, c=columns, y=patches)
    table = np.pad(_unpadded(table, height, width), ((0, 0), (0, 1)))
    return np.concatenate([base, table.ravel()])


def _unpadded(table: Int[np.ndarray, "y x"], height: int, width: int) -> Int[np.ndarray, "_ _"]:
    """The grid's patches without those that only padding went into: `unpad_image` of transformers."""
    rows, columns = table.shape
    # Its seven decimals keep a whole number from being cut to the one below it.
    if width / height > columns / rows:
        padding = (rows - int(round(height * (columns / width), 7))) // 2
        return table[padding : rows - padding]
    padding = (columns - int(round(width * (rows / height), 7))) // 2
    return table[:, padding : columns - padding]
