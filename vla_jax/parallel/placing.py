"""From arrays of one process to arrays on a mesh of all processes' devices, and back."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int

from vla_jax.parallel.mesh import batch_sharding, replicated, rows_apart


def check_rows(mesh: Mesh, batch_size: int) -> None:
    """Refuses a batch whose rows cannot be spread evenly.

    Raises:
      ValueError: says what to set.
    """
    spread = rows_apart(mesh)
    if batch_size % spread:
        raise ValueError(
            f"a batch of {batch_size} rows cannot be spread over data={mesh.shape['data']} x "
            f"fsdp={mesh.shape['fsdp']} devices; make train.batch_size a multiple of {spread}"
        )


def loading() -> AbstractContextManager[Any]:
    """While it is entered, new arrays lie in the host's memory where there are several devices.

    A model that is spread over all of them has no room on the first one.
    """
    if jax.device_count() == 1:
        return nullcontext()
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS leaves the processor out
        return nullcontext()


def local_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, " p"]:
    """Rows of a batch that live on this process's devices, ascending: those that it reads.

    Raises:
      ValueError: where the rows cannot be spread evenly.
    """
    check_rows(mesh, batch_size)
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices]))


def place_batch(mesh: Mesh, batch: Any, rows: Int[np.ndarray, " p"], batch_size: int) -> Any:
    """A batch on the mesh, of which each process brings its own rows.

    Args:
      mesh: the devices.
      batch: tree of arrays with this process's rows in front.
      rows: which rows of the whole batch these are; see `local_rows`.
      batch_size: rows of the whole batch.
    """
    sharding = batch_sharding(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(batch, sharding)

    def place(part: np.ndarray) -> jax.Array:
        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            wanted = np.arange(batch_size)[index[0] if index else slice(None)]
            return part[np.searchsorted(rows, wanted)]

        return jax.make_array_from_callback((batch_size, *part.shape[1:]), sharding, shard)

    return jax.tree.map(place, batch)


def place(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has, where these shardings put them."""

    def one(array: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable:
            return jax.device_put(array, sharding)
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree, shardings)


def on_mesh(mesh: Mesh, tree: Any) -> Any:
    """The tree with every array on the mesh: where it is sharded as it was, else replicated.

    What a step gives back lies there. What the first step is given must too, or the second is compiled anew.
    """

    def one(array: jax.Array) -> jax.Array:
        placed = isinstance(array.sharding, NamedSharding) and array.sharding.mesh == mesh
        return array if placed else place(array, replicated(mesh))

    return jax.tree.map(one, tree)


def gather(tree: Any) -> Any:
    """The tree as every process can read it whole: as it is where it already can, else as NumPy arrays."""

    def one(array: Any) -> Any:
        if not isinstance(array, jax.Array) or array.is_fully_addressable:
            return array
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(one, tree)
