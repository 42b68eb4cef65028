"""What stands behind the objects: pale, so that every colour of object shows."""

from dataclasses import dataclass
from functools import cache
from math import pi

import numpy as np
from jaxtyping import Float32

from vla_jax.data.world.categories import RGB
from vla_jax.data.world.draws import pick

PASTELS: tuple[RGB, ...] = (
    (232, 205, 205),
    (236, 218, 190),
    (226, 226, 196),
    (200, 226, 200),
    (196, 222, 226),
    (196, 206, 232),
    (218, 200, 228),
    (212, 212, 212),
)
SKIES: tuple[RGB, ...] = ((190, 218, 238), (236, 208, 196), (204, 200, 230))
GROUNDS: tuple[RGB, ...] = ((186, 212, 168), (222, 204, 168), (198, 190, 182))
KINDS = ("plain", "gradient", "horizon", "stripes", "checks")


@dataclass(frozen=True)
class Background:
    """A background without pixels.

    Attributes:
      kind: one of `KINDS`.
      first: colour at the top, or of the odd stripes and checks.
      second: colour at the bottom, or of the even ones.
      level: from 0 to 1; the horizon's height, the gradient's direction, or how fine the pattern is.
    """

    kind: str
    first: RGB
    second: RGB
    level: float


def draw_background(rng: np.random.Generator) -> Background:
    """A random background."""
    kind = pick(rng, KINDS)
    if kind == "horizon":
        return Background(kind, pick(rng, SKIES), pick(rng, GROUNDS), rng.random())
    return Background(kind, pick(rng, PASTELS), pick(rng, PASTELS), rng.random())


def paint(background: Background, image_size: int) -> Float32[np.ndarray, "y x 3"]:
    """The background's pixels, from 0 to 255, in a fresh array of `image_size` rows and columns."""
    share = _SHARES[background.kind](background.level, _centres(image_size))[..., None]
    first, second = np.array((background.first, background.second), np.float32)
    pixels = np.empty((image_size, image_size, 3), np.float32)
    pixels[...] = first + share * (second - first)
    return pixels


@cache
def _centres(image_size: int) -> Float32[np.ndarray, " y"]:
    return (np.arange(image_size, dtype=np.float32) + 0.5) / image_size


# How much of the second colour each pixel takes: functions of the level and the pixel centres along a side.


def _plain(level: float, centres: np.ndarray) -> np.ndarray:
    return np.zeros((1, 1), np.float32)


def _gradient(level: float, centres: np.ndarray) -> np.ndarray:
    angle = level * pi / 2
    across, down = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return (centres[None] * across + centres[:, None] * down) / (across + down)


def _horizon(level: float, centres: np.ndarray) -> np.ndarray:
    return (centres[:, None] > 0.4 + 0.35 * level).astype(np.float32)


def _stripes(level: float, centres: np.ndarray) -> np.ndarray:
    return _alternating(level, centres)[:, None]


def _checks(level: float, centres: np.ndarray) -> np.ndarray:
    bands = _alternating(level, centres)
    return np.abs(bands[None] - bands[:, None])


def _alternating(level: float, centres: np.ndarray) -> np.ndarray:
    return (centres * np.float32(4 + 6 * level)).astype(np.int32).astype(np.float32) % 2


_SHARES = {
    "plain": _plain,
    "gradient": _gradient,
    "horizon": _horizon,
    "stripes": _stripes,
    "checks": _checks,
}
