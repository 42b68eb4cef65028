"""The training step as compiled programs, one for each shape of batch, and the memory that they take."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from vla_jax.data import Batch
from vla_jax.models.parameters import Params
from vla_jax.training.step import Metrics, TrainState

GIB = 2**30


class OutOfMemoryError(ValueError):
    """A step that would need more memory than there is."""


@dataclass(frozen=True)
class Memory:
    """What a device holds while a program runs, in bytes, as its compiler counts it.

    Attributes:
      arguments: the state, the frozen parameters and the batch.
      temporaries: intermediate results, and outputs that do not take the place of an argument.
    """

    arguments: int
    temporaries: int

    @classmethod
    def of(cls, program: jax.stages.Compiled) -> "Memory | None":
        """Of a compiled program; None where its compiler does not tell."""
        if (stats := program.memory_analysis()) is None:
            return None
        fresh = stats.output_size_in_bytes - stats.alias_size_in_bytes
        return cls(stats.argument_size_in_bytes, stats.temp_size_in_bytes + max(fresh, 0))

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.temporaries

    def __str__(self) -> str:
        return (
            f"{self.total / GIB:.2f} GiB a device: {self.arguments / GIB:.2f} of parameters, optimizer and "
            f"batch, {self.temporaries / GIB:.2f} while a step computes"
        )


class CompiledStep:
    """A training step, compiled once for each shape of batch that it meets.

    Args:
      step: the jit-compiled function of (state, base parameters, batch).
    """

    def __init__(self, step: Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]):
        self._step, self._programs = step, dict[Any, jax.stages.Compiled]()

    def __len__(self) -> int:
        """How many programs there are."""
        return len(self._programs)

    def __call__(self, state: TrainState, base: Params, batch: Batch) -> tuple[TrainState, Metrics]:
        """The state after the step, and its metrics; the old state is donated."""
        return self.program(state, base, batch)(state, base, batch)

    def program(self, state: TrainState, base: Params, batch: Batch) -> jax.stages.Compiled:
        """The program for batches of this one's shape, compiled where there is none yet."""
        leaves, structure = jax.tree.flatten(batch)
        shape = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if shape not in self._programs:
            self._programs[shape] = self._step.lower(state, base, batch).compile()  # type: ignore[attr-defined]
        return self._programs[shape]


def check_fits(memory: Memory | None, limit: int | None) -> None:
    """Refuses a program that needs more than a device has.

    Raises:
      OutOfMemoryError: says what to do about it.
    """
    if memory is not None and limit is not None and memory.total > limit:
        raise OutOfMemoryError(
            f"a step takes {memory}, and a device has {limit / GIB:.2f} GiB. Set compute.remat=block, lower "
            "train.microbatch_size, or spread the model over more devices with mesh.fsdp"
        )


def bytes_of_a_device() -> int | None:
    """The memory of one local device; of a CPU its share of the machine's; None where nothing tells."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform != "cpu" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
