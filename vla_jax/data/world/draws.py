"""Random draws on a numpy Generator, cheap enough for a thousand scenes a second.

`Generator.choice` and `Generator.permutation` spend tens of microseconds on conversions; these do not.
"""

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return rng.random() < probability


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of `items`, each as likely."""
    return items[int(rng.random() * len(items))]


def pick_weighted(rng: np.random.Generator, items: Sequence[T], weights: Sequence[float]) -> T:
    """One of `items`, in proportion to positive `weights`."""
    cumulative = list(accumulate(weights))
    return items[bisect(cumulative, rng.random() * cumulative[-1], hi=len(items) - 1)]


def shuffled(rng: np.random.Generator, items: Sequence[T]) -> list[T]:
    """All `items` in random order."""
    keys = rng.random(len(items)).tolist()
    return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]


def sample(rng: np.random.Generator, items: Sequence[T], count: int) -> list[T]:
    """`count` distinct ones of `items` (all of them where there are fewer), in random order."""
    return shuffled(rng, items)[:count]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer from `low` to `high`, both included."""
    return low + int(rng.random() * (high - low + 1))
