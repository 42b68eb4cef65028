"""Between which values a number among the options must lie: of the same name, the same in every recipe."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """A range.

    Attributes:
      low, high: its ends, both inside unless `above` leaves out the low one.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        """False of NaN and infinities too."""
        return (
            math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)
        )

    def __str__(self) -> str:
        if math.isinf(self.low):
            return "finite"
        lowest = f"{'above' if self.above else 'at least'} {self.low:g}"
        return lowest if math.isinf(self.high) else f"{lowest} and at most {self.high:g}"


_ANY, _NOT_NEGATIVE, _POSITIVE, _SHARE = Limits(), Limits(0), Limits(0, above=True), Limits(0, 1)
_COUNT, _SEVERAL = Limits(1), Limits(2)
# With a recipe's name before it where its own are narrower.
LIMITS: Mapping[str, Limits] = {
    "anchor_delta": _ANY,
    "anchor_weight": _NOT_NEGATIVE,
    "baseline_rounds": _COUNT,
    "beta": _NOT_NEGATIVE,
    "center_rewards_coefficient": _NOT_NEGATIVE,
    "changed_weight": _NOT_NEGATIVE,
    "clip": _NOT_NEGATIVE,
    "clip_high": _NOT_NEGATIVE,
    "clip_low": _NOT_NEGATIVE,
    "conditional_weight": _NOT_NEGATIVE,
    "dilation": _NOT_NEGATIVE,
    "divergence_weight": _NOT_NEGATIVE,
    "epochs": _COUNT,
    "gamma": _SHARE,
    "label_smoothing": Limits(0, 0.5),
    "lam": _SHARE,
    "list_weight": _NOT_NEGATIVE,
    "margin": _ANY,
    "measured_batches": _NOT_NEGATIVE,
    "minibatches": _COUNT,
    "missing_eos_penalty": _NOT_NEGATIVE,
    "noise_step": Limits(0, 1000),
    "num_views": _SEVERAL,
    "outline_width": _NOT_NEGATIVE,
    "probability": _SHARE,
    "samples": _SEVERAL,
    "sentence_tokens": _COUNT,
    "similar": _ANY,
    "temperature": _NOT_NEGATIVE,
    "text_weight": _NOT_NEGATIVE,
    "threshold": _SHARE,
    "tries": _COUNT,
    "value_clip": _NOT_NEGATIVE,
    "value_weight": _NOT_NEGATIVE,
    # The likeliest answer again and again tells nothing apart.
    **{f"{recipe}.temperature": _POSITIVE for recipe in ("best_of_n", "mixed_dpo", "online_dpo", "rloo")},
}


def check(recipe: str, options: Mapping[str, object]) -> None:
    """Refuses numbers outside of their limits.

    Raises:
      ValueError: names the option as a configuration does, and what it may be.
    """
    for name, value in options.items():
        limits = LIMITS.get(f"{recipe}.{name}", LIMITS.get(name))
        if limits is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if value not in limits:
            raise ValueError(f"options.{recipe}.{name} is {value}; it must be {limits}")
