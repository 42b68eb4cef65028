"""Weights between a checkpoint's tensors and a parameter tree, as its table says.

One tensor is in host memory at a time, whichever way. Coming in, a layer's tensor is written into a stacked
buffer that is donated to the write, so that the buffer is never there twice.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Shaped

from vla_jax.interop.checkpoint import Checkpoint, CheckpointError
from vla_jax.interop.names import is_buffer
from vla_jax.interop.safetensors_writer import Tensor
from vla_jax.models import Parameter, Table
from vla_jax.models.lora import Adapter, LowRank
from vla_jax.models.parameters import Params

_LAYER = "{layer}"


def load(
    table: Table,
    checkpoint: Checkpoint,
    shardings: Any,
    dtype: DTypeLike | None = None,
    ignore: Callable[[str], bool] = is_buffer,
    progress: Callable[[int], object] | None = None,
) -> Params:
    """The parameters of `table`, each tensor straight to its shard.

    Args:
      table: what is wanted.
      checkpoint: where it is read from.
      shardings: tree of shardings, as the table.
      dtype: of the parameters; None keeps each as it is stored (the layers of a stack must then agree).
      ignore: tensors of the checkpoint that nothing needs.
      progress: called with the bytes of each tensor read.

    Raises:
      CheckpointError: names every missing, unexpected and mis-shaped tensor.
    """
    check(table, checkpoint.shapes, f"{checkpoint.folder} does not fit its config.json", ignore)

    def read(name: str, parameter: Parameter) -> Shaped[np.ndarray, "..."]:
        stored = checkpoint.read(name)
        if progress is not None:
            progress(stored.nbytes)
        return _cast(_ours(stored, parameter), dtype, f"{checkpoint.folder}: {name}")

    def place(parameter: Parameter, sharding: NamedSharding) -> Array:
        names = stored_names(parameter)
        if not _is_stacked(parameter):
            return _put(read(names[0], parameter), sharding)

        def layers() -> Iterator[Shaped[np.ndarray, "..."]]:
            first = None
            for name in names:
                value = read(name, parameter)
                first = first or value.dtype
                if value.dtype != first:
                    raise CheckpointError(
                        f"{checkpoint.folder}: {name} is {value.dtype}, the layers before it {first}; "
                        "choose one dtype for all"
                    )
                yield value

        return stack_layers(parameter.shape, layers(), sharding)

    return jax.tree.map(place, table, shardings, is_leaf=_is_parameter)


def _cast(value: Shaped[np.ndarray, "..."], dtype: DTypeLike | None, what: str) -> Shaped[np.ndarray, "..."]:
    if dtype is None:
        if value.dtype.itemsize > 4:
            raise CheckpointError(f"{what} is {value.dtype}, which JAX does not keep; choose a dtype")
        return value
    with np.errstate(over="ignore"):
        cast = value.astype(dtype)
    # Its largest number is 65504; the others' reach as far as float32's.
    if np.dtype(dtype) == np.float16 and np.isinf(cast).any() and not np.isinf(value).any():
        raise CheckpointError(f"{what} has numbers too large for float16; choose bfloat16 or float32")
    return cast


def stack_layers(
    shape: tuple[int, ...], layers: Iterable[Shaped[np.ndarray, "..."]], sharding: NamedSharding | None = None
) -> Array:
    """One array of all layers, each written into it as it comes.

    Args:
      shape: of all layers together; `layers` gives as many as its first axis says, all of one dtype.
      layers: their values.
      sharding: of the array; None keeps it on the default device.

    Raises:
      ValueError: where there are no layers.
    """
    beside = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:])) if sharding else None
    buffer = None
    for layer, value in enumerate(layers):
        if buffer is None:
            buffer = _zeros(shape, value.dtype, sharding)
        # Waited for, else layers that are still to be written gather in the host's memory.
        buffer = _write_layer(buffer, _put(value, beside), layer, sharding).block_until_ready()
    if buffer is None:
        raise ValueError(f"no layers for an array of shape {shape}")
    return buffer


def check(
    table: Table,
    shapes: Mapping[str, tuple[int, ...]],
    complaint: str,
    ignore: Callable[[str], bool] = is_buffer,
) -> None:
    """Finds that tensors of these shapes are what `table` wants.

    Raises:
      CheckpointError: `complaint`, and every missing, unexpected and mis-shaped tensor.
    """
    wanted = {
        name: _stored_shape(parameter)
        for parameter in jax.tree.leaves(table, is_leaf=_is_parameter)
        for name in stored_names(parameter)
    }
    problems = [f"missing {name}" for name in wanted.keys() - shapes.keys()]
    problems += [f"unexpected {name}" for name in shapes.keys() - wanted.keys() if not ignore(name)]
    problems += [
        f"{name} has shape {shapes[name]}, not {wanted[name]}"
        for name in wanted.keys() & shapes.keys()
        if shapes[name] != wanted[name]
    ]
    if problems:
        raise CheckpointError(f"{complaint}: {'; '.join(sorted(problems))}")


def tensors(table: Table, params: Params, adapter: Adapter | None = None) -> list[Tensor]:
    """The parameters as a checkpoint's tensors, read one layer at a time.

    Args:
      table: of the model.
      params: its parameters.
      adapter: a LoRA adapter to add in; computed in float32, layer by layer.
    """
    return list(_tensors(table, params, adapter))


def _tensors(table: Any, params: Any, adapter: Any) -> Iterator[Tensor]:
    if not isinstance(table, Parameter):
        for name, child in table.items():
            yield from _tensors(child, params[name], None if adapter is None else adapter.get(name))
        return
    shape = _stored_shape(table)
    for layer, name in enumerate(stored_names(table)):
        at = layer if _is_stacked(table) else None
        yield Tensor(name, shape, params.dtype, partial(_theirs, table, params, adapter, at))


def stored_names(parameter: Parameter) -> list[str]:
    """The tensors, one a layer where it is stacked, that make a parameter."""
    layers = parameter.shape[0] if _is_stacked(parameter) else 1
    return [parameter.hugging_face.replace(_LAYER, str(layer)) for layer in range(layers)]


def _theirs(
    parameter: Parameter, value: Array, low_rank: LowRank | None, layer: int | None
) -> Shaped[np.ndarray, "..."]:
    if layer is not None:
        value = value[layer]
        low_rank = jax.tree.map(lambda factor: factor[layer], low_rank)
    if low_rank is not None:
        update = low_rank.scale * (low_rank.a.astype(jnp.float32) @ low_rank.b.astype(jnp.float32))
        value = (value.astype(jnp.float32) + update).astype(value.dtype)
    if parameter.layout:
        theirs, mine = parameter.layout.split(" -> ")
        # Before it becomes NumPy's: XLA transposes seven times as fast.
        value = rearrange(value, f"{mine} -> {theirs}")
    return np.asarray(value)


def _ours(stored: Shaped[np.ndarray, "..."], parameter: Parameter) -> Shaped[np.ndarray, "..."]:
    if not parameter.layout:
        return stored
    return rearrange(stored, parameter.layout, **_sizes(parameter, of=parameter.layout.split(" -> ")[0]))


def _sizes(parameter: Parameter, of: str | None = None) -> dict[str, int]:
    """Axis of a layout -> its size; with `of`, only of those that it does not spell out by themselves."""
    mine = parameter.layout.split(" -> ")[1].split()
    shape = parameter.shape[1:] if _is_stacked(parameter) else parameter.shape
    sizes = dict(zip(mine, shape, strict=True))
    if of is None:
        return sizes
    grouped = re.findall(r"\((.*?)\)", of)
    return {axis: sizes[axis] for group in grouped for axis in group.split()}


def _stored_shape(parameter: Parameter) -> tuple[int, ...]:
    """Shape of one layer's tensor in a checkpoint."""
    shape = parameter.shape[1:] if _is_stacked(parameter) else parameter.shape
    if not parameter.layout:
        return shape
    sizes = _sizes(parameter)
    axes = re.findall(r"\(.*?\)|\S+", parameter.layout.split(" -> ")[0])
    return tuple(
        int(np.prod([1 if name == "1" else sizes[name] for name in axis.strip("()").split()]))
        for axis in axes
    )


def _is_stacked(parameter: Parameter) -> bool:
    return _LAYER in parameter.hugging_face


def _is_parameter(node: Any) -> bool:
    return isinstance(node, Parameter)


def _put(value: Shaped[np.ndarray, "..."], sharding: NamedSharding | None) -> Array:
    if sharding is None:
        return jnp.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


@partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shape: tuple[int, ...], dtype: DTypeLike, sharding: NamedSharding | None) -> Array:
    return _constrained(jnp.zeros(shape, dtype), sharding)


@partial(jax.jit, donate_argnums=0, static_argnums=3)
def _write_layer(buffer: Array, value: Array, layer: int, sharding: NamedSharding | None) -> Array:
    return _constrained(jax.lax.dynamic_update_index_in_dim(buffer, value, layer, axis=0), sharding)


def _constrained(value: Array, sharding: NamedSharding | None) -> Array:
    return value if sharding is None else jax.lax.with_sharding_constraint(value, sharding)
