"""Metrics on records that are not trained on: what a recipe logs of a batch, with `eval_` in front."""

from collections.abc import Callable, Iterable, Mapping

import jax
from jaxtyping import Array

from vla_jax.data import Batch
from vla_jax.models.parameters import Params
from vla_jax.training.step import Method, Sums, TrainState, sums_of


class HeldOut:
    """The loss and the metrics of a recipe on held-out batches.

    Args:
      method: what a step does; dropout is off here.
      base: frozen parameters, placed on the mesh.
      open_batches: the batches, on the mesh.
    """

    def __init__(self, method: Method, base: Params, open_batches: Callable[[], Iterable[Batch]]):
        self._base, self._open = base, open_batches
        self._sums = jax.jit(lambda state, base, batch: sums_of(method, state.trained, base, batch))

    def __call__(self, state: TrainState) -> Mapping[str, float]:
        """Means over all records, whatever the batches they came in."""
        total: Sums | None = None
        for batch in self._open():
            sums = self._sums(state, self._base, batch)
            total = sums if total is None else jax.tree.map(_add, total, sums)
        if total is None:
            return {}
        return {f"eval_{name}": float(value) for name, value in jax.device_get(total.means()).items()}


def _add(one: Array, other: Array) -> Array:
    return one + other
