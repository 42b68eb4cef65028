"""The loop: data -> step -> log -> checkpoint, until the steps are done or someone asks to stop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vla_jax.data import Batch
from vla_jax.models.parameters import Params
from vla_jax.parallel import is_first, local_rows, on_mesh, place_batch, replicated
from vla_jax.training.alarms import AlarmConfig, Watch
from vla_jax.training.checkpoints import Checkpoints
from vla_jax.training.collecting import Collector
from vla_jax.training.profile import ProfileConfig, Profiler
from vla_jax.training.programs import CompiledStep, Memory, bytes_of_a_device, check_fits
from vla_jax.training.step import Method, TrainState, make_step
from vla_jax.training.stopping import StopRequest
from vla_jax.training.tracking import Tracker

# Steps skipped in a row, from which on skipping helps no more.
_MOST_SKIPPED = 10


class Interrupted(Exception):
    """Training was asked to stop; its state is saved."""

    def __init__(self, step: int, signal_number: int):
        super().__init__(f"stopped at step {step}, which is saved; go on with the same command")
        self.signal_number = signal_number


class Diverged(Exception):
    """A metric is no longer a number."""


@dataclass(frozen=True)
class LoopConfig:
    """How a run goes along.

    Attributes:
      steps: steps of the whole run.
      batch_size: rows of a batch.
      microbatches: in how many parts a batch goes through the model.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      evaluate_every: steps between evaluations, each of which is saved too; 0 for none.
      skip_nonfinite: leave out a step with a metric that is not finite, instead of stopping at it.
      profile: the steps that are profiled.
    """

    steps: int
    batch_size: int
    microbatches: int
    checkpoint_every: int
    evaluate_every: int = 0
    skip_nonfinite: bool = False
    profile: ProfileConfig = ProfileConfig()


def fit(
    method: Method,
    state: TrainState,
    base: Params,
    open_batches: Callable[[int, int], Iterator[Batch]],
    config: LoopConfig,
    *,
    mesh: Mesh,
    checkpoints: Checkpoints,
    open_tracker: Callable[[int], Tracker],
    length_of: Callable[[int], int],
    describe: Callable[[int], Mapping[str, float]],
    evaluate: Callable[[TrainState], Mapping[str, float]],
    profile_folder: Path,
    collector: Collector | None = None,
    open_watch: Callable[[int], Watch] = lambda start: Watch(AlarmConfig(action="off")),
) -> TrainState:
    """Trains up to `config.steps`, from the newest checkpoint where there is one.

    Args:
      method: what a step does.
      state: the state at step 0; what of it is sharded stays so.
      base: frozen parameters, placed on the mesh.
      open_batches: first step, step to stop before -> their batches; of several processes each reads its
        own rows.
      config: how it goes along.
      mesh: the devices.
      checkpoints: where states are kept.
      open_tracker: steps done -> what logs the steps to come.
      length_of: step, counted from 0 -> how long the rows of its batch are, as far as that differs.
      describe: steps done -> further figures to log (`epoch`, `learning_rate`).
      evaluate: state -> figures of an evaluation.
      profile_folder: where a profile goes.
      collector: lets the method make its responses, where it does.
      open_watch: steps done -> what looks out for the collapse of the policy.

    Returns:
      The state after the last step.

    Raises:
      Interrupted: on SIGINT or SIGTERM, once the state is saved.
      Diverged: at the first metric that is not finite; the last checkpoint before it stands.
      Collapsed: at a sign of collapse, where the run is to stop at one.
      OutOfMemoryError: before the first step, where the largest batch needs more memory than there is.
      CheckpointError: where there are checkpoints, and they are not this run's.
    """
    steps, rows = config.steps, local_rows(mesh, config.batch_size)

    def placed(batch: Batch) -> Batch:
        return place_batch(mesh, batch, rows, config.batch_size)

    with jax.set_mesh(mesh), checkpoints:
        state = on_mesh(mesh, state)
        state, counters = checkpoints.restore(state) or (state, {"num_tokens": 0})
        if (start := int(state.step)) >= steps:
            return state
        placement = jax.tree.map(lambda leaf: leaf.sharding, state), replicated(mesh)
        step_function = CompiledStep(make_step(method, config.microbatches, placement, config.skip_nonfinite))
        if collector is None:
            # The program of the largest batch is needed anyway, and says now what would else show late.
            longest = max(range(start, steps), key=length_of)
            (largest,) = map(placed, open_batches(longest, longest + 1))
            _check_memory(step_function.program(state, base, largest))
        else:
            collector.prepare(state, base, lambda: map(placed, open_batches(0, steps)))
        with (
            open_tracker(start) as tracker,
            Profiler(config.profile, profile_folder, start) as profiler,
            StopRequest() as stop,
        ):
            log = _Log(tracker, dict(counters), describe, checkpoints, open_watch(start))
            found: Mapping[str, float]
            for step, (batch, waited) in enumerate(_timed(open_batches(start, steps)), start=start + 1):
                profiler.before(step)
                batch, found = placed(batch), {}
                if collector is not None:
                    collected = collector(state, base, batch)
                    batch, found = collected.batch, collected.metrics
                    tracker.log_samples(step, collected.samples)
                    if not len(step_function):
                        _check_memory(step_function.program(state, base, batch))
                state, metrics = step_function(state, base, batch)
                log.write_last()
                log.keep(step, {**metrics, **found}, waited)
                asked = stop.after(step)
                evaluated = bool(config.evaluate_every) and step % config.evaluate_every == 0
                if step % config.checkpoint_every == 0 or step == steps or asked or evaluated:
                    figures = log.write_last()
                    if evaluated:
                        figures |= log.write_evaluation(step, evaluate(state))
                    checkpoints.save(state, log.counters, figures)
                if asked and step < steps:
                    raise Interrupted(step, asked)
    return state


class _Log:
    """Writes each step one late, when its metrics are ready without waiting for the device."""

    def __init__(
        self,
        tracker: Tracker,
        counters: dict[str, Any],
        describe: Callable[[int], Mapping[str, float]],
        checkpoints: Checkpoints,
        watch: Watch,
    ):
        self.counters = counters
        self._tracker, self._describe, self._checkpoints = tracker, describe, checkpoints
        self._watch = watch
        self._last: tuple[int, Mapping[str, Any], float] | None = None
        self._written, self._skipped = time.perf_counter(), 0

    def keep(self, step: int, metrics: Mapping[str, Any], waited: float) -> None:
        """Takes a step, of which so many seconds were spent waiting for its batch."""
        self._last = step, metrics, waited

    def write_last(self) -> dict[str, float]:
        """Writes the step that was kept, and gives its figures; none where it is written already.

        Raises:
          Diverged: where a metric is not finite and the step was not skipped, or too many were.
          Collapsed: where the policy has collapsed, and the run is to stop at that.
        """
        if self._last is None:
            return {}
        (step, metrics, waited), self._last = self._last, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        wait_share, self._written = waited / max(now - self._written, 1e-9), now
        self._guard(step, values)
        self.counters["num_tokens"] += int(values["num_tokens"])
        values |= {"num_tokens": self.counters["num_tokens"], "data_wait": min(wait_share, 1.0)}
        values |= self._describe(step)
        self._tracker.log(step, values)
        for alarm in self._watch.new(step, values, self._checkpoints.steps):
            self._tracker.say(f"alarm at step {step}: {alarm}, which looks like a collapse of the policy")
        return values

    def write_evaluation(self, step: int, figures: Mapping[str, float]) -> Mapping[str, float]:
        """Writes what was measured after a step."""
        self._tracker.log_evaluation(step, figures)
        self._written = time.perf_counter()
        return figures

    def _guard(self, step: int, values: Mapping[str, float]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        # A jitted function gives its metrics by name; the gradient follows from all the others.
        bad.sort(key=lambda name: name == "grad_norm")
        if not bad:
            self._skipped = 0
            return
        self._skipped += 1
        what = f"{bad[0]} is {values[bad[0]]} at step {step}"
        if values.get("skipped_steps") and self._skipped < _MOST_SKIPPED:
            self._tracker.say(f"{what}; the step is skipped")
            return
        many = f", the {self._skipped}th step in a row that is not finite" if self._skipped > 1 else ""
        raise Diverged(
            f"{what}{many}; the last checkpoint is step {self._checkpoints.latest}. Lower "
            "optimizer.learning_rate or optimizer.max_grad_norm, or set train.on_nonfinite=skip"
        )


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Batches, each with the seconds that were spent waiting for it."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _check_memory(program: jax.stages.Compiled) -> None:
    memory = Memory.of(program)
    if is_first():
        print(f"memory: {memory or 'this backend does not tell'}")
    check_fits(memory, bytes_of_a_device())
