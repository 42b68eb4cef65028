"""Optimizers and learning-rate schedules from optax."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from vla_jax.models.parameters import Params, Table

OPTIMIZERS = ("adamw", "adafactor", "muon")
SCHEDULES = ("constant", "linear", "cosine")
Schedule = Callable[[jax.Array | int], jax.Array | float]


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule.

    Attributes:
      name: "adamw" (Loshchilov and Hutter 2019, arXiv:1711.05101), or "muon" (Jordan et al. 2024) for the
        matrices of the towers' linear layers, with AdamW for all else, both with Nesterov's momentum: whole
        parameters only, no adapters.
      learning_rate: its peak.
      schedule: how it falls to 0 after the warm-up: "constant" (not at all), "linear" or "cosine".
      warmup_ratio: share of all steps over which it rises from 0.
      matrix_learning_rate: Muon's own peak, on the scale of AdamW's (its updates have a root mean square of
        0.2; Liu et al. 2025, arXiv:2502.16982); the schedule is the same.
      beta1, beta2, weight_decay: AdamW's; Muon and Adafactor share the decay.
      max_grad_norm: gradients are scaled down to this global norm.
      projector_learning_rate, vision_learning_rate, head_learning_rate: peaks for parameters of these parts
        that are trained whole (the head is what gives logits or rewards); 0 takes `learning_rate`.
    """

    name: str = "adamw"
    learning_rate: float = 1e-4
    matrix_learning_rate: float = 2e-3
    schedule: str = "linear"
    warmup_ratio: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    projector_learning_rate: float = 0.0
    vision_learning_rate: float = 0.0
    head_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ValueError(f"optimizer.name is {self.name!r}; choose one of {', '.join(OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"optimizer.schedule is {self.schedule!r}; choose one of {', '.join(SCHEDULES)}")
        if self.name == "muon" and self.own_rates():
            raise ValueError("learning rates of parts are not for optimizer.name='muon'; leave them at 0")
        if self.own_rates() and not self.learning_rate:
            raise ValueError("learning rates of parts need an optimizer.learning_rate above 0")

    def own_rates(self) -> dict[str, str]:
        """Pattern of a part's parameters -> the field that sets its own learning rate, where one is set."""
        return {pattern: field for pattern, field in _PARTS.items() if getattr(self, field)}

    def relative_rate(self, path: str) -> float:
        """A parameter's learning rate as a multiple of `learning_rate`; paths are `params/vision/...`."""
        for pattern, field in self.own_rates().items():
            if re.search(pattern, path):
                return getattr(self, field) / self.learning_rate
        return 1.0


# Parts with a learning rate of their own, by paths in what is trained.
_PARTS = {
    r"^params/(projector/|newline)": "projector_learning_rate",
    r"^params/vision/": "vision_learning_rate",
    r"^params/(language/head|reward/)": "head_learning_rate",
}


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


def make_optimizer(config: OptimizerConfig, steps: int, table: Table) -> optax.GradientTransformation:
    """The optimizer of a `Trained` behind global-norm clipping; `table` tells matrices of linear layers."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        _optimizer(config, steps, table),
        optax.stateless(lambda updates, _: _scaled(updates, config)),
    )


def _scaled(updates: Any, config: OptimizerConfig) -> Any:
    """Updates of parts with a learning rate of their own: AdamW's are proportional to it."""

    def scale(path: Any, update: jax.Array) -> jax.Array:
        return update * config.relative_rate(jax.tree_util.keystr(path, simple=True, separator="/"))

    return jax.tree_util.tree_map_with_path(scale, updates)


def _optimizer(config: OptimizerConfig, steps: int, table: Table) -> optax.GradientTransformation:
    schedule = make_schedule(config, steps)
    decay = config.weight_decay
    if config.name == "adamw":
        return optax.adamw(schedule, b1=config.beta1, b2=config.beta2, weight_decay=decay)
    if config.name == "adafactor":
        # As transformers has it with a learning rate of one's own: not scaled by the parameter's size.
        decays = optax.add_decayed_weights(decay)
        scaled = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), decays)
        return optax.chain(scaled, optax.scale_by_learning_rate(schedule))
    return muon(
        make_schedule(replace(config, learning_rate=config.matrix_learning_rate), steps),
        weight_decay=decay,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        adam_weight_decay=decay,
        adam_learning_rate=schedule,
        muon_weight_dimension_numbers=lambda trained: trained._replace(
            params=_matrices(trained.params, table)
        ),
        consistent_rms=0.2,
    )


def _matrices(params: Params, table: Any) -> Any:
    """Input and output axis of each parameter that Muon takes, None at the others; stacked layers are apart.

    Optax also asks about the tree as each of the two optimizers sees it, the other's parameters masked.
    """
    if isinstance(params, optax.MaskedNode):
        return params
    if not isinstance(params, Mapping):
        last = params.ndim - 1
        return MuonDimensionNumbers((last - 1,), (last,)) if table.is_block_linear else None
    return {name: _matrices(child, table[name]) for name, child in params.items()}
