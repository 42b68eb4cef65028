"""Checkpoints with orbax: the train state beside the counters that go on with it."""

import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from vla_jax.parallel import all_agree, is_first, wait_for_all
from vla_jax.training.step import TrainState

# A checkpoint that cannot be read is kept under its name with this behind it.
DAMAGED = ".damaged"


class CheckpointError(ValueError):
    """Checkpoints that cannot be this run's."""


class Checkpoints:
    """The last few states of a run and its best one, written in the background and committed by a rename.

    Only what is trained is stored: under LoRA that is the adapter and its optimizer state, not the base. What
    the base was is noted, and another one is refused.

    Args:
      path: their folder.
      keep: how many of the last to keep.
      base: what tells the frozen parameters from others.
      best: the metric whose best value is kept too; "" for none.
      greater: whether the greater value is the better.
    """

    def __init__(self, path: Path, keep: int, base: str = "", best: str = "", greater: bool = False):
        self._path, self._base = path.absolute(), base
        policies: list[managers.PreservationPolicy] = [managers.LatestN(keep)]
        # Those of a run that chose by another metric before hold no value of this one.
        worst = -math.inf if greater else math.inf
        measured = (lambda metrics: metrics.get(best, worst)) if best else None
        if measured:
            # Orbax sorts ascending and keeps the last.
            policies.append(
                managers.BestN(
                    get_metric_fn=measured,
                    reverse=not greater,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._best = best
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(policies),
            # Without it the metric is not written, and after a restart nobody knows which was best.
            best_fn=measured,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
        )
        _drop_damaged_metrics(self._path)
        self._manager = ocp.CheckpointManager(self._path, options=options)

    @property
    def latest(self) -> int | None:
        """Step of the newest committed checkpoint."""
        return self._manager.latest_step()

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of all that are kept, ascending."""
        return tuple(sorted(self._manager.all_steps()))

    def save(
        self, state: TrainState, counters: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Begins to write the state; returns once it has been copied off the devices.

        Args:
          state: the state.
          counters: what goes on with it.
          metrics: of the step; the best is chosen by them.

        Raises:
          OSError, ValueError: where the one before could not be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        known = {"base": self._base, **counters}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), counters=ocp.args.JsonSave(known))
        value = (metrics or {}).get(self._best, math.nan)
        measured = {self._best: value} if math.isfinite(value) else None
        self._manager.save(step, args=items, metrics=measured)

    def restore(self, like: TrainState) -> tuple[TrainState, Mapping[str, Any]] | None:
        """The newest state that can be read, in the shapes and shardings of `like`, and its counters.

        One that cannot be read, on any process, is said and the one before it tried; once that can be read,
        it is set aside. Where none can, all stay as they are: what keeps them from being read may pass.

        Raises:
          CheckpointError: where it belongs to another base model, or there are some and none can be read.
        """
        steps, unreadable = sorted(self._manager.all_steps(), reverse=True), list[int]()
        for step in steps:
            read, reason = None, "another process says so"
            try:
                read = self._read(step, like)
            # Orbax raises whatever the layer below it does; anything but a readable checkpoint is damaged.
            except Exception as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if not all_agree(read is not None) or read is None:
                unreadable.append(step)
                if is_first():
                    print(f"the checkpoint of step {step} cannot be read ({reason:.300})")
                continue
            state, counters = read
            if counters.pop("base", "") not in ("", self._base):
                raise CheckpointError(
                    f"{self._path} holds checkpoints of another base model; choose another --workdir, or "
                    "restore the model that this run began with"
                )
            self._set_aside(unreadable, step)
            return state, counters
        if steps:
            raise CheckpointError(
                f"none of the checkpoints in {self._path} can be read; mend that, or remove the folder to "
                "begin anew"
            )
        return None

    def _read(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), counters=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], dict(restored["counters"])

    def _set_aside(self, steps: Sequence[int], before: int) -> None:
        if not steps:
            return
        if is_first():
            for step in steps:
                folder = self._path / str(step)
                aside = folder.with_name(folder.name + DAMAGED)
                print(f"it is kept as {aside.name}, and the run goes on from step {before}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
        wait_for_all("damaged checkpoints set aside")
        self._manager.reload()

    def __enter__(self) -> "Checkpoints":
        self._report = sys.unraisablehook
        sys.unraisablehook = _without_late_answers(self._report)
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        """Waits until everything is committed, unless another process is gone, for which it would wait too.

        Raises:
          OSError, ValueError: where something could not be written.
        """
        if kind is not None and issubclass(kind, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
            return
        try:
            self._manager.wait_until_finished()
        finally:
            self._manager.close()
        if kind is None:
            # Not where a save failed: answers may yet come.
            sys.unraisablehook = self._report


def _without_late_answers(
    report: Callable[["sys.UnraisableHookArgs"], object],
) -> Callable[["sys.UnraisableHookArgs"], object]:
    """`report`, of all but writes that end after a save has failed.

    At the first write that fails orbax raises and closes its event loop; tensorstore gives that loop the
    results of the others all the same, each of which Python would print as a traceback.
    """

    def reported(unraisable: "sys.UnraisableHookArgs") -> None:
        if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
            report(unraisable)

    return reported


def _drop_damaged_metrics(path: Path) -> None:
    """Removes metrics that cannot be read: with them orbax would open none of the checkpoints."""
    if is_first():
        for file in path.glob("*[0-9]/metrics/metrics"):
            try:
                json.loads(file.read_bytes())
            except ValueError as error:
                print(f"{file} cannot be read ({error}); that checkpoint can no longer be the best one")
                shutil.rmtree(file.parent)
    wait_for_all("metrics of checkpoints read")
