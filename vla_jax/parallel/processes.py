"""One run in several processes: how they find each other, and what only one of them does."""

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

# What schedulers that JAX knows how to read say of the number of processes.
_SIZES = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
# A process that has said nothing for this long is gone, and the others end.
_HEARTBEAT_SECONDS = 30
# The first to end waits this long for the others.
_SHUTDOWN_SECONDS = 60


def connect(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the processes of a run, from flags or from what a scheduler says; alone there is nothing to do.

    To be called before JAX is first used. TPU pods, Slurm and Open MPI are found without flags.

    Args:
      coordinator: host:port of the first process.
      processes: how many there are.
      process: which of them this is, from 0.

    Raises:
      ValueError: where only some of the three are given.
    """
    given = (bool(coordinator), processes > 0, process >= 0)
    if any(given) and not all(given):
        raise ValueError("--coordinator, --num_processes and --process_id belong together: give all three")
    if not all(given) and not _started_together(os.environ):
        return
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator if all(given) else None,
        processes if all(given) else None,
        process if all(given) else None,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )


def _started_together(environment: Mapping[str, str], devices: Path = Path("/dev")) -> bool:
    """Whether there is a scheduler that says so, or a TPU, whose hosts know each other."""
    sizes = [environment.get(name, "") for name in _SIZES]
    several = any(size.isdigit() and int(size) > 1 for size in sizes)
    # Chips up to v4 are devices of their own; newer ones look like any that is handed through to a program.
    chips = [*devices.glob("accel*"), *(devices.glob("vfio/[0-9]*") if find_spec("libtpu") else ())]
    has_tpu = bool(chips) or "TPU_WORKER_HOSTNAMES" in environment
    return several or (has_tpu and environment.get("JAX_PLATFORMS", "tpu") != "cpu")


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def all_agree(value: bool) -> bool:
    """Whether it is true on every process."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.array(value))))


def from_first(array: np.ndarray) -> np.ndarray:
    """The first process's array, on every process; those of the others have its shape."""
    if jax.process_count() == 1:
        return array
    return np.asarray(multihost_utils.broadcast_one_to_all(array))


def end_alone(message: str) -> NoReturn:
    """Ends this process with an error, without waiting for others, which may never come.

    Raises:
      SystemExit: where there are no others.
    """
    if jax.process_count() == 1:
        sys.exit(message)
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    # An orderly exit would wait for every other process at a barrier.
    os._exit(1)
