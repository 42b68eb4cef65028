"""What tells one model's parameters from another's, wherever they lie."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from vla_jax.models.parameters import Params

# Odd numbers: what an index is multiplied by along each dimension, so that no two places weigh the same.
_FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)


def fingerprint(params: Params, config: Mapping[str, Any]) -> str:
    """A hash of a model's shape and of a checksum of every parameter.

    Each checksum is a sum of whole numbers made where the parameter lies: it does not depend on how that is
    sharded, and nothing is moved.
    """
    total = hashlib.sha256(json.dumps(dict(config), sort_keys=True).encode())
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    sums = jax.jit(lambda params: [_checksum(leaf) for leaf in jax.tree.leaves(params)])(params)
    for path, leaf, value in zip(paths, jax.tree.leaves(params), jax.device_get(sums), strict=True):
        total.update(f"{path} {leaf.dtype} {leaf.shape} {int(value)}".encode())
    return total.hexdigest()


def _checksum(leaf: Array) -> UInt32[Array, ""]:
    """The bits of every number, weighed by its place, modulo 2 ** 32."""
    width = np.dtype(leaf.dtype).itemsize
    bits = jax.lax.bitcast_convert_type(leaf, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width])
    place = jnp.uint32(1)
    for axis, factor in zip(range(leaf.ndim), _FACTORS, strict=False):
        shape = [1] * leaf.ndim
        shape[axis] = leaf.shape[axis]
        place = place + jnp.arange(leaf.shape[axis], dtype=jnp.uint32).reshape(shape) * jnp.uint32(factor)
    # Mixed before they are added up, so that exchanged or opposite changes do not cancel.
    mixed = (bits.astype(jnp.uint32) ^ place) * jnp.uint32(0x2545F491)
    return jnp.sum(mixed ^ (mixed >> 15), dtype=jnp.uint32)
