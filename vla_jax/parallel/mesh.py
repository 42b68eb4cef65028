"""A mesh with axes data, fsdp and tensor, and the shardings that follow from it."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# Logical axis of a parameter -> mesh axis. What is not named here is replicated.
RULES = {"embed": "fsdp", "heads": "tensor", "kv_heads": "tensor", "mlp": "tensor", "vocab": "tensor"}


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices.

    Args:
      data, fsdp, tensor: sizes of the axes; one may be -1 and takes what the others leave.
      devices: which devices; all by default.

    Raises:
      ValueError: where the sizes do not multiply to the number of devices.
    """
    devices = list(devices if devices is not None else jax.devices())
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) == 1 and min(size for size in sizes if size != -1) > 0:
        sizes[sizes.index(-1)] = len(devices) // math.prod(size for size in sizes if size != -1)
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        raise ValueError(
            f"mesh data={data}, fsdp={fsdp}, tensor={tensor} does not fit {len(devices)} devices; "
            "the sizes must multiply to that number (one of them may be -1)"
        )
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch spread over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def rows_apart(mesh: Mesh) -> int:
    """Over how many parts of the mesh rows of a batch are spread."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_rules(rules: Mapping[str, str]) -> None:
    """Refuses rules that name no axis of a mesh.

    Raises:
      ValueError: names the field and what there is to choose.
    """
    for name, axis in rules.items():
        if axis and axis not in AXES:
            raise ValueError(f"sharding.{name} is {axis!r}; choose one of {', '.join(AXES)}, or '' for none")


def parameter_shardings(
    mesh: Mesh, shapes: Any, axes: Mapping[str, Any], rules: Mapping[str, str] = MappingProxyType(RULES)
) -> Any:
    """Where each parameter lives.

    Args:
      mesh: the mesh.
      shapes: tree of arrays or abstract arrays.
      axes: tree of logical axis names, as the models' tables give it.
      rules: logical axis -> mesh axis; '' and what is not named are replicated.

    Returns:
      Tree of shardings; a dimension that its mesh axis does not divide is not sharded.
    """

    def place(array: Any, names: tuple[str | None, ...]) -> NamedSharding:
        spec = [rules.get(name) if name else None for name in names]
        fits = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(spec, array.shape, strict=True)
        ]
        return NamedSharding(mesh, PartitionSpec(*fits))

    return jax.tree.map(place, shapes, axes)
