"""The one typed record every data source yields, and the one error every bad record raises.

A source is anything with `__len__` and `__getitem__(index) -> Record`: random access, no state, no jax.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from vla_jax.data.images import Decoded, UnreadableImageError

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


class Picture(Protocol):
    """An image that is decoded when its pixels are asked for; see images.py."""

    @property
    def name(self) -> str:
        """What an error calls it."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), without decoding it."""

    def pixels(self) -> UInt8[np.ndarray, "y x 3"]:
        """RGB."""

    def decoded(self) -> Decoded:
        """Itself, read once, to be asked often."""

    def encoded(self) -> bytes:
        """The image as a file."""


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
      box: (x0, y0, x1, y1) in pixels of the record's first image, x1 and y1 exclusive; None where unknown.
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
      images: none, one or several; they stand before the user's first words, in this order.
      question: what the responses answer, without any image placeholder or chat template.
      responses: role -> answer, the best first; preference data has `chosen` and `rejected`, supervised data
        `chosen`.
      history: turns before the question; part of the prompt.
      system: what the system message says; "" leaves it to the chat template.
      further_turns: turns that follow the chosen answer; supervised recipes score their answers too.
      objects: what is known to be in the first image.
      key_object: place among them of the one that the chosen answer is about, where the source says which.
      ratings: role -> what the source's annotators gave the response, higher is better.
      spans: role -> (start, end) of the characters that annotators changed, where the source tells.
      provenance: how responses were made that no source gave, as JSON can hold it; see `construct`.
    """

    key: str
    images: tuple[Picture, ...]
    question: str
    responses: Mapping[str, str]
    history: tuple[Turn, ...] = ()
    system: str = ""
    further_turns: tuple[Turn, ...] = ()
    objects: tuple[Object, ...] = ()
    key_object: int | None = None
    ratings: Mapping[str, float] = field(default_factory=dict)
    spans: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ranking(self) -> tuple[str, ...]:
        """Roles, best first: by rating where every response has one, else as the source lists them."""
        if not self.responses.keys() <= self.ratings.keys():
            return tuple(self.responses)
        return tuple(sorted(self.responses, key=lambda role: -self.ratings[role]))

    @property
    def image(self) -> UInt8[np.ndarray, "y x 3"]:
        """The only image, decoded.

        Raises:
          ValueError: where there are none or several.
        """
        if len(self.images) != 1:
            raise ValueError(f"record {self.key!r} has {len(self.images)} images; look at `images`")
        return self.images[0].pixels()


def decoded(record: Record, source: str) -> UInt8[np.ndarray, "y x 3"]:
    """The only image of a record.

    Raises:
      DataError: where it cannot be read.
    """
    try:
        return record.image
    except UnreadableImageError as error:
        raise DataError(source, record.key, error.problem, error.remedy) from None


class Source(Protocol):
    """Random access to records: what every reader and the built-in world provide."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...
