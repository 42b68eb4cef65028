"""The one typed record every data source yields, and the one error every bad record raises.

A source is anything with `__len__` and `__getitem__(index) -> Record`: random access, no state, no jax.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, UInt8

CHOSEN = "chosen"
REJECTED = "rejected"

Box = tuple[float, float, float, float]


class DataError(ValueError):
    """A record that cannot be used: says where it stands, what is wrong with it, and what to do.

    Args:
      source: the file or data set the record comes from.
      record: the record's place in it, e.g. `line 3`.
      problem: what is wrong.
      remedy: what the user can do about it.
    """

    def __init__(self, source: str, record: str, problem: str, remedy: str):
        super().__init__(source, record, problem, remedy)
        self.source, self.record, self.problem, self.remedy = source, record, problem, remedy

    def __str__(self) -> str:
        return f"{self.source}, {self.record}: {self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Turn:
    """One question of the user and the answer to it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Object:
    """One object in an image.

    Attributes:
      name: its category, singular ("dining table"); "" where the source gives a box without a name.
      box: (x0, y0, x1, y1) in pixels of `Record.image`, x1 and y1 exclusive; None where unknown.
      mask: boolean [y x] of its visible pixels; None where unknown.
    """

    name: str
    box: Box | None = None
    mask: Bool[np.ndarray, "y x"] | None = None


@dataclass(frozen=True)
class Record:
    """One example as a source yields it, before any tokenisation.

    Attributes:
      key: unique within the source; with the seed it fixes every random draw made for this record.
      image: RGB, uint8 [y x 3].
      question: the user's first question, without any image placeholder or chat template.
      responses: role -> answer; preference data has `chosen` and `rejected`, supervised data `chosen`.
      further_turns: turns that follow the chosen answer; supervised recipes score their answers too.
      objects: what is known to be in the image.
    """

    key: str
    image: UInt8[np.ndarray, "y x 3"]
    question: str
    responses: Mapping[str, str]
    further_turns: tuple[Turn, ...] = ()
    objects: tuple[Object, ...] = ()


class Source(Protocol):
    """Random access to records: what every reader and the built-in world provide."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...
