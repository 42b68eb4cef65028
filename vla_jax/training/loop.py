"""The loop: data -> step -> log -> checkpoint, until the steps are done or someone asks to stop."""

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vla_jax.data import Batch
from vla_jax.models.parameters import Params
from vla_jax.parallel import batch_sharding, on_mesh
from vla_jax.training.checkpoints import Checkpoints
from vla_jax.training.programs import CompiledStep, Memory, bytes_of_a_device, check_fits
from vla_jax.training.step import Method, Metrics, TrainState, make_step
from vla_jax.training.tracking import Tracker


class Interrupted(Exception):
    """Training was asked to stop; its state is saved."""

    def __init__(self, step: int, signal_number: int):
        super().__init__(f"stopped at step {step}, which is saved; go on with the same command")
        self.signal_number = signal_number


class Diverged(Exception):
    """A metric is no longer a number."""


def fit(
    method: Method,
    state: TrainState,
    base: Params,
    open_batches: Callable[[int], Iterator[Batch]],
    *,
    steps: int,
    batch_size: int,
    length_of: Callable[[int], int],
    microbatches: int,
    workdir: Path,
    mesh: Mesh,
    checkpoint_every: int,
    keep_checkpoints: int,
    describe: Callable[[int], Mapping[str, float]],
    title: str,
) -> TrainState:
    """Trains up to `steps`, from the newest checkpoint in `workdir` where there is one.

    Args:
      method: what a step does.
      state: the state at step 0; what of it is sharded stays so.
      base: frozen parameters, placed on the mesh.
      open_batches: first step -> batches from there on.
      steps: steps of the whole run.
      batch_size: rows of a batch.
      length_of: step, counted from 0 -> how long the rows of its batch are, as far as that differs.
      microbatches: in how many parts a batch goes through the model.
      workdir: checkpoints and logs go here.
      mesh: the devices.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      keep_checkpoints: how many to keep.
      describe: steps done -> further figures to log (`epoch`, `learning_rate`).
      title: for the progress bar.

    Returns:
      The state after the last step.

    Raises:
      Interrupted: on SIGINT or SIGTERM, once the state is saved.
      Diverged: at the first metric that is not finite; the last checkpoint before it stands.
      OutOfMemoryError: before the first step, where the largest batch needs more memory than there is.
    """
    checkpoints = Checkpoints(workdir / "checkpoints", keep_checkpoints)
    counters: dict[str, Any] = {"num_tokens": 0}
    state = on_mesh(mesh, state)
    if checkpoints.latest is not None:
        state, restored = checkpoints.restore(state)
        counters = dict(restored)
    start = int(state.step)
    if start >= steps:
        checkpoints.close()
        return state
    step_function = CompiledStep(make_step(method, microbatches, jax.tree.map(lambda x: x.sharding, state)))
    # The program of the largest batch is needed anyway, and says now what would else be found out late.
    largest = jax.device_put(
        next(open_batches(max(range(start, steps), key=length_of))), batch_sharding(mesh)
    )
    memory = Memory.of(step_function.program(state, base, largest))
    print(f"memory: {memory or 'this backend does not tell'}")
    check_fits(memory, bytes_of_a_device())
    tracker = Tracker(workdir, start, steps, batch_size, title)
    pending: tuple[int, Metrics, int] | None = None

    def log_pending() -> None:
        """Logs the step before this one, whose metrics are ready without waiting for the device."""
        if pending is not None:
            step, metrics, tokens = pending
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if bad := [name for name, value in values.items() if not math.isfinite(value)]:
                raise Diverged(
                    f"{bad[0]} is {values[bad[0]]} at step {step}; the last checkpoint is step "
                    f"{checkpoints.latest}. Lower optimizer.learning_rate or optimizer.max_grad_norm"
                )
            tracker.log(step, {**values, **describe(step), "num_tokens": tokens})

    try:
        with _StopRequest() as stop:
            for step, batch in enumerate(open_batches(start), start=start + 1):
                placed = jax.device_put(batch, batch_sharding(mesh))
                state, metrics = step_function(state, base, placed)
                counters["num_tokens"] += int(np.sum(batch.prefix_mask) + np.sum(batch.response_mask))
                log_pending()
                pending = step, metrics, counters["num_tokens"]
                if step % checkpoint_every == 0 or step == steps or stop.signal_number:
                    log_pending()
                    pending = None
                    checkpoints.save(state, counters)
                if stop.signal_number and step < steps:
                    raise Interrupted(step, stop.signal_number)
        return state
    finally:
        checkpoints.close()
        tracker.close()


class _StopRequest:
    """While it is entered, the first SIGINT or SIGTERM is noted; a second one acts as usual."""

    def __enter__(self) -> "_StopRequest":
        self.signal_number: int | None = None
        self._former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._former:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        self.__exit__()
