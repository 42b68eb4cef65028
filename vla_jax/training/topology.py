"""TPU pods that are not there: their chips, as the compiler knows them."""

import os
import re
from dataclasses import dataclass
from typing import Any

from jax.experimental import topologies

from vla_jax.training.programs import GIB


@dataclass(frozen=True)
class Chip:
    """One kind of TPU, as its maker's documentation describes it.

    Attributes:
      memory: of one chip, in bytes.
      peak: bfloat16 FLOPs a second of one chip.
      dimensions: of the grid that chips of a pod make.
      settings: what libtpu must be told to see a chip as one device.
    """

    memory: int
    peak: float
    dimensions: int
    settings: tuple[tuple[str, str], ...] = ()


CHIPS = {
    "v4": Chip(32 * GIB, 275e12, 3, (("chip_config_name", "megacore"),)),
    "v5e": Chip(16 * GIB, 197e12, 2),
    "v5p": Chip(95 * GIB, 459e12, 3),
    "v6e": Chip(32 * GIB, 918e12, 2),
}


def chip_of(topology: str) -> Chip:
    """The kind of chip that a topology ("v5e:4x4") is of.

    Raises:
      ValueError: where it is not known.
    """
    kind, _, grid = topology.partition(":")
    chip = CHIPS.get(kind)
    if chip is None or not re.fullmatch("x".join([r"[1-9]\d*"] * chip.dimensions), grid):
        raise ValueError(
            f"topology {topology!r} is not one of a pod; name the grid of its chips, as in v5e:4x4, v6e:2x4, "
            "v4:2x2x1 or v5p:2x2x1"
        )
    return chip


def devices_of(topology: str) -> list[Any]:
    """The chips of a pod that is not there, to lay a mesh over and to compile for.

    Raises:
      ValueError: where there is no such pod, or no libtpu.
    """
    chip = chip_of(topology)
    added = {name: value for name, value in _NO_TPU.items() if name not in os.environ}
    os.environ.update(added)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **dict(chip.settings))
    except Exception as error:
        raise ValueError(f"topology {topology!r}: {str(error).splitlines()[0]}") from error
    finally:
        # What this process starts would take itself for a TPU's host.
        for name in added:
            del os.environ[name]
    return list(found.devices)


# No TPU is looked for, on this machine or by way of the network, and others may use libtpu meanwhile. Any
# type will do: the topology says what is compiled for.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
