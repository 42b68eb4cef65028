"""What is where in a scene, and the two distributions scenes are drawn from.

A scene knows no pixels: positions and sizes are fractions of the image's side, so it renders at any size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from vla_jax.data.world.backgrounds import Background, draw_background
from vla_jax.data.world.categories import CATEGORIES, CATEGORY, COLOURS, PAIRS, SIZES
from vla_jax.data.world.config import WorldConfig
from vla_jax.data.world.draws import between, chance, pick, pick_weighted, sample, shuffled
from vla_jax.data.world.sprites import silhouette

_Extent = tuple[float, float, float, float]

# More objects than this do not fit without hiding each other.
_MAX_INSTANCES = 7
_PLACES_TRIED = 24
_LAYOUTS_TRIED = 1000
_SMALLER = {"large": "medium", "medium": "small", "small": "small"}


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
      name: its category, a key of `CATEGORY`.
      colour: a key of `COLOURS`.
      size: a key of `SIZES`.
      x: centre, as a fraction of the image's width from the left.
      y: centre, as a fraction of the image's height from the top.
    """

    name: str
    colour: str
    size: str
    x: float
    y: float

    @property
    def extent(self) -> _Extent:
        """(x0, y0, x1, y1) around the figure, as fractions of the image's side."""
        side, (x0, y0, x1, y1) = SIZES[self.size], silhouette(self.name).extent
        left, top = self.x - side / 2, self.y - side / 2
        return left + side * x0, top + side * y0, left + side * x1, top + side * y1

    @property
    def area(self) -> float:
        """The figure's area, as a fraction of the image's."""
        return SIZES[self.size] ** 2 * silhouette(self.name).area


@dataclass(frozen=True)
class Scene:
    """A picture before it has pixels.

    Attributes:
      objects: from the back to the front.
      background: what stands behind them.
      anchors: categories the biased distribution chose first, whose partners it then added with probability
        `cooccurrence`; empty in unbiased scenes.
    """

    objects: tuple[SceneObject, ...]
    background: Background
    anchors: tuple[str, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The distinct categories present."""
        return tuple(dict.fromkeys(thing.name for thing in self.objects))

    @property
    def absent_partners(self) -> tuple[str, ...]:
        """Partners of anchors that are missing: what a language prior expects to see."""
        partners = (CATEGORY[anchor].partner for anchor in self.anchors)
        return tuple(partner for partner in partners if partner not in self.names)

    def instances(self, name: str) -> tuple[SceneObject, ...]:
        """The objects of one category; they share colour and size."""
        return tuple(thing for thing in self.objects if thing.name == name)


def biased_scene(rng: np.random.Generator, config: WorldConfig) -> Scene:
    """A scene in which partners keep company, as in training and preference data.

    An anchor is added only where its partner would find room too, so the partner's presence is an independent
    draw with probability `config.cooccurrence` for every anchor.
    """
    wanted = between(rng, 1, config.max_anchors)
    pairs, weights = list(PAIRS), list(_pair_weights(config.popularity_exponent))
    anchors: list[str] = []
    names: list[str] = []
    while len(names) < config.min_objects or (len(anchors) < wanted and len(names) + 2 <= config.max_objects):
        chosen = pick_weighted(rng, range(len(pairs)), weights)
        del weights[chosen]
        anchor = pick(rng, pairs.pop(chosen))
        anchors.append(anchor.name)
        names.append(anchor.name)
        if chance(rng, config.cooccurrence):
            names.append(anchor.partner)
    return _composed(rng, config, names, tuple(anchors))


def unbiased_scene(rng: np.random.Generator, config: WorldConfig) -> Scene:
    """A scene of categories drawn uniformly without replacement: nothing can be told from the company."""
    count = between(rng, config.min_objects, config.max_objects)
    return _composed(rng, config, [category.name for category in sample(rng, CATEGORIES, count)], ())


@cache
def categories_by_frequency(config: WorldConfig) -> tuple[str, ...]:
    """Names of all categories, the most frequent in biased scenes first.

    The two of a pair are equally frequent; a pair's frequency rises with its weight.
    """
    weights = _pair_weights(config.popularity_exponent)
    ranked = sorted(range(len(PAIRS)), key=lambda pair: -weights[pair])
    return tuple(category.name for pair in ranked for category in PAIRS[pair])


@cache
def _pair_weights(exponent: float) -> tuple[float, ...]:
    return tuple(rank**-exponent for rank in range(1, len(PAIRS) + 1))


def _composed(
    rng: np.random.Generator, config: WorldConfig, names: Sequence[str], anchors: tuple[str, ...]
) -> Scene:
    """The scene of the named categories, with colours, sizes, duplicates, places and a background."""
    kinds, spare = [], _MAX_INSTANCES - len(names)
    for name in names:
        kind = SceneObject(name, pick(rng, tuple(COLOURS)), pick(rng, tuple(SIZES)), 0.5, 0.5)
        kinds.append(kind)
        if chance(rng, config.duplicates) and spare > 0:
            kinds.append(kind)
            spare -= 1
    return Scene(_laid_out(rng, kinds, config), draw_background(rng), anchors)


def _laid_out(
    rng: np.random.Generator, kinds: Sequence[SceneObject], config: WorldConfig
) -> tuple[SceneObject, ...]:
    """The objects at free places, in random depth; where they find no room, all become a size smaller."""
    for _ in range(_LAYOUTS_TRIED):
        placed = _placed(rng, shuffled(rng, kinds), 1 - config.min_visible, config.grid)
        if placed is not None:
            return placed
        kinds = [replace(kind, size=_SMALLER[kind.size]) for kind in kinds]
    raise RuntimeError(
        f"{len(kinds)} objects found no places that leave {config.min_visible:.0%} of each visible; "
        "lower WorldConfig.min_visible or WorldConfig.max_objects"
    )


def _placed(
    rng: np.random.Generator, kinds: Sequence[SceneObject], max_hidden: float, grid: int
) -> tuple[SceneObject, ...] | None:
    """Objects put down one by one, each in front of those before it; None where one finds no place.

    What an object may hide of another is bounded by the overlap of the boxes around them, over the figure's
    area: cheap, and never too little.
    """
    placed: list[SceneObject] = []
    extents: list[_Extent] = []
    hidden: list[float] = []
    for kind in kinds:
        side = SIZES[kind.size]
        for u, v in rng.random((_PLACES_TRIED, 2)).tolist():
            thing = replace(kind, x=_centre(u, side, grid), y=_centre(v, side, grid))
            extent = thing.extent
            total = [before + _overlap(extent, other) for before, other in zip(hidden, extents, strict=True)]
            if all(area <= max_hidden * other.area for area, other in zip(total, placed, strict=True)):
                break
        else:
            return None
        placed.append(thing)
        extents.append(extent)
        hidden = [*total, 0.0]
    return tuple(placed)


def _centre(share: float, side: float, grid: int) -> float:
    """A centre at `share` of the room a figure of this side has, on a line of the grid if there is one."""
    if not grid:
        return side / 2 + share * (1 - side)
    first, last = math.ceil(side / 2 * grid - 1e-9), math.floor((1 - side / 2) * grid + 1e-9)
    return (first + math.floor(share * (last - first + 1))) / grid


def _overlap(a: _Extent, b: _Extent) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
