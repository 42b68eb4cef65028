"""Figures before and after training, side by side."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Better = Literal["lower", "higher", ""]


@dataclass(frozen=True)
class Measure:
    """One row of the comparison.

    Attributes:
      name: what is measured.
      meaning: the figure in words.
      better: the direction that is an improvement; "" where neither is.
      before, after: the figures, in percent; None where they were not measured.
      n_before, n_after: captions or questions the figures rest on; None where the run does not say.
    """

    name: str
    meaning: str
    better: Better
    before: float | None
    after: float | None
    n_before: int | None
    n_after: int | None

    @property
    def change(self) -> float | None:
        """after - before, in percentage points."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def verdict(self) -> Literal["better", "worse", ""]:
        """What the change means; "" where there is none, or no direction is the better one."""
        if not self.change or not self.better:
            return ""
        return "better" if (self.change < 0) == (self.better == "lower") else "worse"


_CHAIR: tuple[tuple[str, str, str, Better], ...] = (
    ("chair_s", "CHAIR_s", "captions that name an absent object", "lower"),
    ("chair_i", "CHAIR_i", "mentions of absent objects among all", "lower"),
    ("recall", "Recall", "objects in the image that are named", "higher"),
)
_POPE: tuple[tuple[str, str, str, Better], ...] = (
    ("accuracy", "accuracy", "yes/no questions answered right", "higher"),
    ("f1", "F1", "of the answer yes", "higher"),
    ("yes_ratio", "yes-ratio", "answered yes; 50 where yes and no are balanced", ""),
)


def measures(summary: Mapping[str, Any]) -> tuple[Measure, ...]:
    """The rows for which `summary["before"]` or `summary["after"]` holds a figure.

    Both are flat mappings with any of `chair_s`, `chair_i`, `recall` over `n` captions and `pope_accuracy`,
    `pope_f1`, `pope_yes_ratio` over `pope_n` questions, all in percent; `pope` may hold more, by split:
    `{"adversarial": {"accuracy": ..., "f1": ..., "yes_ratio": ..., "n": ...}}`.
    """
    return tuple(row for row in _rows(summary) if not (row.before is None and row.after is None))


def _rows(summary: Mapping[str, Any]) -> Iterator[Measure]:
    before, after = (summary.get(side) or {} for side in ("before", "after"))
    for key, name, meaning, better in _CHAIR:
        yield _row(name, meaning, better, before, after, key, "n")
    for key, name, meaning, better in _POPE:
        yield _row(f"POPE {name}", meaning, better, before, after, f"pope_{key}", "pope_n")

    before, after = (side.get("pope") or {} for side in (before, after))
    for split in dict.fromkeys((*before, *after)):
        for key, name, meaning, better in _POPE:
            yield _row(
                f"POPE {split}, {name}",
                meaning,
                better,
                before.get(split, {}),
                after.get(split, {}),
                key,
                "n",
            )


def _row(
    name: str,
    meaning: str,
    better: Better,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    key: str,
    n: str,
) -> Measure:
    return Measure(
        name, meaning, better, _figure(before.get(key)), _figure(after.get(key)), before.get(n), after.get(n)
    )


def _figure(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
