"""Checkpoints with orbax: the train state beside the counters that go on with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vla_jax.training.step import TrainState


class Checkpoints:
    """The last few states of a run, written in the background and committed by a rename.

    Only what is trained is stored: under LoRA that is the adapter and its optimizer state, not the base.

    Args:
      path: their folder.
      keep: how many to keep.
    """

    def __init__(self, path: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(path.absolute(), options=options)

    @property
    def latest(self) -> int | None:
        """Step of the newest committed checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, counters: Mapping[str, Any]) -> None:
        """Begins to write the state; returns once it has been copied off the devices."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), counters=ocp.args.JsonSave(dict(counters))
        )
        self._manager.save(step, args=items)

    def restore(self, like: TrainState) -> tuple[TrainState, Mapping[str, Any]]:
        """The newest state, in the shapes and shardings of `like`, and its counters."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            self.latest,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), counters=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], restored["counters"]

    def close(self) -> None:
        """Waits until everything is committed."""
        self._manager.wait_until_finished()
        self._manager.close()
