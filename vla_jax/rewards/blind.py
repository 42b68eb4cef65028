"""The way from comparisons to verdicts that all reading judges share.

Two responses that are the same are a tie, and nobody is asked. All others are shown in a drawn order to
whoever judges; what was answered before comes from the cache; what is answered now is recorded as it arrives;
the order is undone at the end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vla_jax.rewards.judging import Comparison, JudgeError, Shown, Verdict, is_swapped, shown
from vla_jax.rewards.reading import Reading
from vla_jax.rewards.verdict_cache import VerdictCache

# Readings in any order, each with the place of what was asked.
Readings = Iterator[tuple[int, Reading]]


@dataclass(frozen=True)
class BlindJudge:
    """A judge that is not told which response is the first.

    Attributes:
      name: what it is, for the log.
      judge: reads comparisons as they are shown; gives its readings as they arrive.
      identity: what its answers depend on besides what it is shown: plain values, in every key.
      seed: of the order.
      cache: where readings are kept; None keeps none.
      costs: what it has cost so far, by name.
    """

    name: str
    judge: Callable[[Sequence[Shown]], Readings]
    identity: Mapping[str, Any]
    seed: int = 0
    cache: VerdictCache | None = None
    costs: Callable[[], Mapping[str, float]] = field(default=dict)

    @property
    def spent(self) -> Mapping[str, float]:
        """What it has cost so far; empty for one that costs nothing."""
        return self.costs()

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """A verdict a comparison; one that stands here several times is asked once.

        Raises:
          JudgeError: where the judge cannot go on; what it said until then is in the cache.
        """
        swaps = [is_swapped(comparison, self.seed) for comparison in comparisons]
        asked = [
            shown(comparison, swap, self.identity)
            for comparison, swap in zip(comparisons, swaps, strict=True)
        ]
        readings = self._readings({one.key: one for one in asked if one.responses[0] != one.responses[1]})
        return [
            _verdict(readings.get(one.key, Reading(None)), swap)
            for one, swap in zip(asked, swaps, strict=True)
        ]

    def _readings(self, asked: Mapping[str, Shown]) -> dict[str, Reading]:
        readings: dict[str, Reading] = {}
        if self.cache is not None:
            readings = {key: known for key in asked if (known := self.cache.get(key)) is not None}
        missing = [one for key, one in asked.items() if key not in readings]
        if not missing:
            return readings
        for place, reading in self.judge(missing):
            one = missing[place]
            if self.cache is not None:
                self.cache.record(one, reading)
            readings[one.key] = reading
        if lost := [one for one in missing if one.key not in readings]:
            raise JudgeError(f"{self.name}: {len(lost)} of {len(missing)} comparisons were not judged")
        return readings


def _verdict(reading: Reading, swapped: bool) -> Verdict:
    if reading.better is None:
        return Verdict(None, reading.reply, reading.problem, swapped)
    return Verdict(1 if (reading.better == 2) != swapped else 0, reading.reply, swapped=swapped)
