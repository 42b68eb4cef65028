"""Resizing along an axis as PyTorch does, as a matrix: for position embeddings of a grid of another size."""

import numpy as np
from jaxtyping import Float


def bicubic(old: int, new: int) -> Float[np.ndarray, "{new} {old}"]:
    """Matrix that resizes one axis as `torch.nn.functional.interpolate(mode="bicubic")` does.

    Cubic convolution (Keys 1981) with a = -0.75, borders repeated, no antialiasing. jax.image.resize has
    a = -0.5 and cannot be told otherwise.
    """
    a = -0.75
    at = (np.arange(new) + 0.5) * old / new - 0.5
    base = np.floor(at).astype(int)
    matrix = np.zeros((new, old), np.float32)
    for tap in range(-1, 3):
        distance = np.abs(at - base - tap)
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        weight = np.where(distance <= 1, near, far)
        np.add.at(matrix, (np.arange(new), np.clip(base + tap, 0, old - 1)), weight)
    return matrix
