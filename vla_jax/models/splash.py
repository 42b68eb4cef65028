"""Splash attention, the TPU's kernel, on one device or spread over a mesh."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from vla_jax.models.target import Target

# The kernel's numbers of queries and keys are multiples of this.
SPLASH_MULTIPLE = 128
# Queries and keys that the kernel holds at a time, the largest that divides their number.
_BLOCKS = (512, 256, SPLASH_MULTIPLE)


def splash_attention(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b s g k"],
    values: Float[Array, "b s g k"],
    valid: Bool[Array, "b s"],
    window: int = 0,
    target: Target | None = None,
) -> Float[Array, "b t h k"]:
    """As `attention.causal_attention`, by the kernel; on another machine than a TPU it is interpreted.

    XLA cannot split a kernel, so under a mesh every device is given its own rows and heads.

    Args:
      queries, keys, values, valid, window: see `attention.causal_attention`.
      target: what the program is compiled for; None is this machine, and one device of it.

    Raises:
      ValueError: where a length is no multiple of 128, or heads do not split over the mesh.
    """
    length, total = queries.shape[1], keys.shape[1]
    if length % SPLASH_MULTIPLE or total % SPLASH_MULTIPLE:
        raise ValueError(
            f"splash attention of {length} queries and {total} keys: both must be multiples of "
            f"{SPLASH_MULTIPLE}; set data.max_prompt_length and data.max_completion_length accordingly"
        )
    interpret = (jax.default_backend() if target is None else target.platform) != "tpu"

    def of_one_device(queries: Array, keys: Array, values: Array, valid: Array) -> Array:
        kernel = _kernel(length, total, queries.shape[2], window, interpret)
        # Padding is a segment of its own: padded queries see padded keys.
        segments = _segments(valid, total - length)
        scale = queries.shape[-1] ** -0.5
        q, k, v = (rearrange(array, "b t h k -> b h t k") for array in (queries * scale, keys, values))
        mixed = jax.vmap(kernel)(q, k, v, segments)
        return rearrange(mixed, "b h t k -> b t h k").astype(queries.dtype)

    if target is None or not target.on_mesh:
        return of_one_device(queries, keys, values, valid)
    if target.heads:
        keys, values = _splittable(queries, keys, values, target.size(target.heads))
    rows = PartitionSpec(target.rows or None)
    heads = PartitionSpec(target.rows or None, None, target.heads or None)
    # Kernels do not say over which axes what they give varies.
    spread = jax.shard_map(
        of_one_device, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
    )
    return spread(queries, keys, values, valid)


def _splittable(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b s g k"],
    values: Float[Array, "b s g k"],
    parts: int,
) -> tuple[Float[Array, "b s m k"], Float[Array, "b s m k"]]:
    """Keys and values with every head repeated as often as it takes to split them as the queries are."""
    heads, shared = queries.shape[2], keys.shape[2]
    repeats = parts // math.gcd(parts, shared)
    if heads % parts or heads % (shared * repeats):
        raise ValueError(
            f"splash attention: {heads} heads over {shared} of keys cannot be split over {parts} devices; "
            "set mesh.tensor to a number that divides both"
        )
    # Each device's query heads must find their own key heads there, so repeats stand beside each other.
    return jnp.repeat(keys, repeats, axis=2), jnp.repeat(values, repeats, axis=2)


def _kernel(length: int, total: int, heads: int, window: int, interpret: bool) -> Any:
    """The kernel for the last `length` of `total` positions."""
    # Pallas takes a second to import, and most runs do without it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

    shape, offset = (length, total), total - length
    if window:
        mask: splash_mask.Mask = splash_mask.LocalMask(shape, (window - 1, 0), offset)
    else:
        mask = splash_mask.CausalMask(shape, offset)
    q, kv = (next(size for size in _BLOCKS if positions % size == 0) for positions in shape)
    return splash.make_splash_mha(
        splash_mask.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(
            block_q=q,
            block_kv=kv,
            block_q_dkv=q,
            block_kv_dkv=kv,
            block_q_dq=q,
            block_kv_dq=kv,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def _segments(valid: Bool[Array, "b s"], offset: int) -> Any:
    """Which positions belong together: the valid ones, and the padding."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    return splash.SegmentIds(valid[:, offset:].astype(jnp.int32), valid.astype(jnp.int32))
