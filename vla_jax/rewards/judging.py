"""What a judge is: two responses to one question about one image go in, which of them is better comes out.

A judge that reads may favour the response it reads first. So the order in which it is shown two responses is
drawn, and undone in its verdict. The draw depends on nothing but a seed and the comparison itself: whoever
asks the same again, in either order, after a restart or beside other comparisons, asks in the same words.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8


class JudgeError(RuntimeError):
    """A judge that cannot go on; says why and what to do. What it said so far is kept."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a judge is asked.

    Attributes:
      image: RGB [y x 3].
      question: what was asked about it.
      first, second: the responses.
    """

    image: UInt8[np.ndarray, "y x 3"] = field(repr=False)
    question: str
    first: str
    second: str


@dataclass(frozen=True)
class Verdict:
    """What a judge made of a comparison.

    Attributes:
      preferred: 0 for the first response, 1 for the second, None where neither was preferred.
      reply: the judge's own words; "" where it has none.
      problem: why its reply is no verdict; "" where it is one, a tie among them.
      swapped: whether the judge was shown the second response first.
    """

    preferred: Literal[0, 1] | None
    reply: str = ""
    problem: str = ""
    swapped: bool = False

    @property
    def tie(self) -> bool:
        """Whether the judge found both equally good."""
        return self.preferred is None and not self.problem


class Judge(Protocol):
    """Compares pairs of responses.

    Attributes:
      name: what it is, for the log.
    """

    @property
    def name(self) -> str:
        """What it is, for the log."""
        ...

    @property
    def spent(self) -> Mapping[str, float]:
        """What it has cost so far, by name; empty for one that costs nothing."""
        ...

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """A verdict a comparison.

        Raises:
          JudgeError: where there is none to be had.
        """
        ...


class Shown(NamedTuple):
    """A comparison as it is shown: `key` is a hash of all that the answer depends on."""

    key: str
    image: UInt8[np.ndarray, "y x 3"]
    question: str
    responses: tuple[str, str]


def is_swapped(comparison: Comparison, seed: int) -> bool:
    """Whether the second response is shown first: a fair coin, the same at every call.

    It is drawn for the two responses as a set, so that whoever exchanges them exchanges the verdict.
    """
    responses = sorted((comparison.first, comparison.second))
    digest = _digest([seed, comparison.question, *responses], comparison.image)
    return (comparison.first, comparison.second) != tuple(responses[:: 1 if digest[0] % 2 else -1])


def shown(comparison: Comparison, swapped: bool, identity: Mapping[str, Any]) -> Shown:
    """The comparison in the order that was drawn.

    Args:
      comparison: what is asked.
      swapped: whether the second response comes first.
      identity: what else the answer depends on: plain values.
    """
    first, second = comparison.first, comparison.second
    responses = (second, first) if swapped else (first, second)
    content = [dict(sorted(identity.items())), comparison.question, *responses]
    return Shown(_digest(content, comparison.image).hex(), comparison.image, comparison.question, responses)


def tally(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Shares of all verdicts, for the log.

    Returns:
      `judge_ties`, `judge_unreadable`, and, of those that prefer a response, `judge_prefers_shown_first`: far
      from a half, the judge goes by the order.
    """
    verdicts = list(verdicts)
    decided = [verdict for verdict in verdicts if verdict.preferred is not None]
    shares = {
        "judge_ties": _share([verdict.tie for verdict in verdicts]),
        "judge_unreadable": _share([bool(verdict.problem) for verdict in verdicts]),
    }
    if decided:
        first = [verdict.preferred == int(verdict.swapped) for verdict in decided]
        shares["judge_prefers_shown_first"] = _share(first)
    return shares


def _share(flags: list[bool]) -> float:
    return sum(flags) / max(len(flags), 1)


def _digest(content: list[Any], image: UInt8[np.ndarray, "y x 3"]) -> bytes:
    """SHA-256 of plain values and an image's pixels."""
    text = json.dumps([*content, image.shape, str(image.dtype)])
    return hashlib.sha256(text.encode() + b"\0" + np.ascontiguousarray(image).tobytes()).digest()
