"""Watches a run for the collapse of its policy.

Answers that repeat themselves, are all the same, drift in length, or leave the reference far behind: losses
and rewards tell none of it, since a policy that games its reward looks well.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import NamedTuple

ACTIONS = ("warn", "stop", "off")
REPETITION, SAMENESS = "completions/repetition", "completions/sameness"
LENGTH, KL = "completions/mean_length", "kl"


@dataclass(frozen=True)
class AlarmConfig:
    """When a policy counts as collapsed. A bound of 0 is not watched.

    Attributes:
      action: what an alarm does: warn says it once, each time it begins; stop ends the run; off watches
        nothing.
      window: steps whose mean is compared.
      repetition: bound on `completions/repetition`, the share of 3-grams that stood in their answer before.
      sameness: bound on `completions/sameness`, the share of the commonest answer among all of a step.
      length_ratio: how many times longer or shorter than in the run's first window answers may become.
      kl: bound on `kl`, the divergence from the reference in nats a token.
    """

    action: str = "warn"
    window: int = 20
    repetition: float = 0.3
    sameness: float = 0.9
    length_ratio: float = 2.0
    kl: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what cannot be watched.

        Raises:
          ValueError: names the field.
        """
        if self.action not in ACTIONS:
            raise ValueError(f"alarms.action is {self.action!r}; choose one of {', '.join(ACTIONS)}")
        if self.window < 1:
            raise ValueError(f"alarms.window is {self.window}; it must be at least 1")
        for name, value in asdict(self).items():
            if name != "action" and value < 0:
                raise ValueError(f"alarms.{name} is {value}; give a bound, or 0 to watch none")
        if 0 < self.length_ratio <= 1:
            raise ValueError(f"alarms.length_ratio is {self.length_ratio}; give one above 1, or 0")


class Alarm(NamedTuple):
    """One sign of collapse.

    Attributes:
      metric: its name in the log.
      value: its mean over the last window.
      bound: what it passed.
    """

    metric: str
    value: float
    bound: float

    def __str__(self) -> str:
        side = "above" if self.value > self.bound else "below"
        return f"{self.metric} is {self.value:.3g}, {side} {self.bound:.3g}"


class Collapsed(Exception):
    """The policy has collapsed, and the run was to stop at that."""


def alarms(rows: Iterable[Mapping[str, float]], config: AlarmConfig) -> list[Alarm]:
    """The signs of collapse at the end of a log.

    Args:
      rows: metrics of steps, the first of the run first. Rows without a metric are not asked for it.
      config: the bounds.

    Returns:
      An alarm for each metric whose mean over its last `window` values is out of bounds. Until there are so
      many none is; lengths are compared with those of the first window.
    """
    if config.action == "off":
        return []
    kept = list(rows)
    raised = []
    for metric, bound in ((REPETITION, config.repetition), (SAMENESS, config.sameness), (KL, config.kl)):
        values = [row[metric] for row in kept if metric in row]
        if bound and len(values) >= config.window and (mean := fmean(values[-config.window :])) > bound:
            raised.append(Alarm(metric, mean, bound))
    lengths = [row[LENGTH] for row in kept if LENGTH in row]
    if config.length_ratio and len(lengths) >= config.window:
        first, last = fmean(lengths[: config.window]), fmean(lengths[-config.window :])
        for bound in (first * config.length_ratio, first / config.length_ratio):
            if (last > bound) if bound > first else (last < bound):
                raised.append(Alarm(LENGTH, last, bound))
    return raised


class Watch:
    """Watches a run step by step.

    Args:
      config: the bounds.
      rows: what the run had logged before it was started again.
    """

    def __init__(self, config: AlarmConfig, rows: Iterable[Mapping[str, float]] = ()):
        self._config = config
        self._first, self._last = list[Mapping[str, float]](), list[Mapping[str, float]]()
        self._ringing = dict[str, Alarm]()
        for row in rows:
            self._raised(row)

    def new(self, step: int, row: Mapping[str, float], checkpoints: Iterable[int] = ()) -> list[Alarm]:
        """The alarms that begin with this step.

        Args:
          step: its number.
          row: its metrics.
          checkpoints: the steps of those that are kept.

        Raises:
          Collapsed: where the run is to stop at an alarm, at any, also one that had begun when the run was
            started again.
        """
        begun = self._raised(row)
        if self._ringing and self._config.action == "stop":
            first = next(iter(self._ringing.values()))
            before = max((kept for kept in checkpoints if kept <= step - self._config.window), default=None)
            good = f"the last checkpoint from before them is step {before}"
            if before is None:
                good = "no checkpoint from before them is kept (checkpoint.every, checkpoint.keep)"
            raise Collapsed(
                f"the policy has collapsed: {first}, the mean of the {self._config.window} steps up to "
                f"step {step}; {good}. Lower optimizer.learning_rate, raise the recipe's beta, or set "
                "alarms.action=warn"
            )
        return begun

    def _raised(self, row: Mapping[str, float]) -> list[Alarm]:
        if LENGTH not in row and KL not in row:
            return []
        window = self._config.window
        if len(self._first) < window:
            self._first.append(row)
        self._last = [*self._last, row][-window:]
        # Of a long run only both ends are looked at; while it is short they are one.
        known = self._last if len(self._last) < window else [*self._first, *self._last]
        before, self._ringing = self._ringing, {alarm.metric: alarm for alarm in alarms(known, self._config)}
        return [alarm for metric, alarm in self._ringing.items() if metric not in before]
