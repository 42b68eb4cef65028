"""Attention behind two functions, so that a backend can change without a model knowing.

`attention` takes any mask. `causal_attention` takes the one structure that training needs, a causal mask with
an offset, padding and a window, as numbers, which kernels can use and masks of booleans cannot.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float

# Queries that XLA handles at a time: keys behind the last of them are skipped, and scores stay in cache.
_QUERIES = 128
_BLOCKS = 16


def attention(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b s g k"],
    values: Float[Array, "b s g k"],
    mask: Bool[Array | np.ndarray, "#b #t s"] | None = None,
) -> Float[Array, "b t h k"]:
    """Scaled dot-product attention, softmax in float32.

    Args:
      queries: [b t h k].
      keys, values: [b s g k]; g divides h, and each key head serves h / g query heads (grouped-query).
      mask: True where a query may see a key; None lets every query see every key. A query that may see
        nothing (padding) gets an average of the values, never a NaN.
    """
    dtype, groups = queries.dtype, keys.shape[2]
    if dtype == jnp.float16 and jax.default_backend() == "cpu":
        # XLA's CPU has no product of float16 that adds up in float32.
        queries, keys, values = (array.astype(jnp.float32) for array in (queries, keys, values))
    # Heads in front of positions, so that what is multiplied lies together: on a CPU three times as fast as
    # jax.nn.dot_product_attention, on accelerators the same program.
    q = rearrange(queries, "b t (g r) k -> b g r t k", g=groups)
    k, v = (rearrange(array, "b s g k -> b g s k") for array in (keys, values))
    scores = jnp.einsum("bgrtk,bgsk->bgrts", q, k, preferred_element_type=jnp.float32)
    scores *= queries.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    mixed = jnp.einsum("bgrts,bgsk->bgrtk", weights, v)
    return rearrange(mixed, "b g r t k -> b t (g r) k").astype(dtype)


def causal_attention(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b s g k"],
    values: Float[Array, "b s g k"],
    valid: Bool[Array, "b s"],
    *,
    window: int = 0,
    backend: str = "xla",
) -> Float[Array, "b t h k"]:
    """Attention of the last t of s positions: query i sees valid keys up to s - t + i.

    Args:
      queries: of the last t positions.
      keys, values: of all s positions.
      valid: False at padding.
      window: a query sees this many positions, its own included; 0 sees all before it.
      backend: see `compute.Compute`; "splash" needs t and s in multiples of 128, and "cudnn" half precision.
    """
    if backend == "splash":
        return _splash_attention(queries, keys, values, valid, window)
    length, total = queries.shape[1], keys.shape[1]
    if backend == "cudnn":
        mask = causal_mask(length, total, window) & valid[:, None]
        return jax.nn.dot_product_attention(queries, keys, values, mask=mask[:, None], implementation="cudnn")
    step = max(_QUERIES, -(-length // _BLOCKS))
    mixed = []
    for start in range(0, length, step):
        end = min(start + step, length)
        last = total - length + end
        visible = causal_mask(end - start, last, window) & valid[:, None, :last]
        mixed.append(attention(queries[:, start:end], keys[:, :last], values[:, :last], visible))
    return jnp.concatenate(mixed, axis=1)


def causal_mask(queries: int, keys: int, window: int = 0) -> Bool[np.ndarray, "t s"]:
    """True where one of the last `queries` of `keys` positions sees a key, without regard to padding."""
    behind = np.arange(keys - queries, keys)[:, None] - np.arange(keys)
    return (behind >= 0) & (behind < (window or keys))


def _splash_attention(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b s g k"],
    values: Float[Array, "b s g k"],
    valid: Bool[Array, "b s"],
    window: int,
) -> Float[Array, "b t h k"]:
    """The TPU kernel; on another machine it is interpreted, to be tested."""
    # Pallas takes a second to import, and most runs do without it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

    length, total, heads = queries.shape[1], keys.shape[1], queries.shape[2]
    if length % 128 or total % 128:
        raise ValueError(
            f"splash attention of {length} queries and {total} keys: both must be multiples of 128; set "
            "data.max_prompt_length and data.max_completion_length accordingly"
        )
    shape, offset = (length, total), total - length
    if window:
        mask: splash_mask.Mask = splash_mask.LocalMask(shape, (window - 1, 0), offset)
    else:
        mask = splash_mask.CausalMask(shape, offset)
    kernel = splash.make_splash_mha(
        splash_mask.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=1,
        interpret=jax.default_backend() != "tpu",
    )
    # Padding is a segment of its own: padded queries see padded keys.
    segments = splash.SegmentIds(valid[:, offset:].astype(jnp.int32), valid.astype(jnp.int32))
    scale = queries.shape[-1] ** -0.5
    q, k, v = (rearrange(array, "b t h k -> b h t k") for array in (queries * scale, keys, values))
    return rearrange(jax.vmap(kernel)(q, k, v, segments), "b h t k -> b t h k").astype(queries.dtype)
