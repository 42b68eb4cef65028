"""Optimizer and learning-rate schedule from optax."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import optax

SCHEDULES = ("constant", "linear", "cosine")
Schedule = Callable[[jax.Array | int], jax.Array | float]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule.

    Attributes:
      learning_rate: its peak.
      schedule: how it falls to 0 after the warm-up: "constant" (not at all), "linear" or "cosine".
      warmup_ratio: share of all steps over which it rises from 0.
      beta1, beta2, weight_decay: AdamW's.
      max_grad_norm: gradients are scaled down to this global norm.
    """

    learning_rate: float = 1e-4
    schedule: str = "linear"
    warmup_ratio: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"optimizer.schedule is {self.schedule!r}; choose one of {', '.join(SCHEDULES)}")


def make_schedule(config: OptimizerConfig, steps: int) -> Schedule:
    """Learning rate of each step of a run of `steps`."""
    warmup = round(config.warmup_ratio * steps)
    rest, peak = max(steps - warmup, 1), config.learning_rate
    falls = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
    }
    rise = (
        optax.linear_schedule(peak / (warmup + 1), peak, warmup) if warmup else optax.constant_schedule(peak)
    )
    return optax.join_schedules([rise, falls[config.schedule]], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW behind global-norm clipping."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(
            make_schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
        ),
    )
