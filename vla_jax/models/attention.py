"""Attention behind two functions, so that a backend can change without a model knowing.

`attention` takes any mask. `causal_attention` takes the one structure that training needs, a causal mask with
an offset, padding and a window, as numbers, which kernels can use and masks of booleans cannot.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float

# Fewest queries of a block, and most blocks.
_QUERIES = 80
_BLOCKS = 8


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
    q, k, v = _heads_first(queries, keys, values)
    return _positions_first(_mixed(q, k, v, mask), queries)


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
    q, k, v = _heads_first(queries, keys, values)
    # Blocks of queries: keys behind the last of a block are skipped, and its scores stay in cache.
    step = -(-length // max(1, min(length // _QUERIES, _BLOCKS)))
    mixed = []
    for start in range(0, length, step):
        end = min(start + step, length)
        last = total - length + end
        visible = causal_mask(end - start, last, window) & valid[:, None, :last]
        mixed.append(_mixed(q[..., start:end, :], k[..., :last, :], v[..., :last, :], visible))
    return _positions_first(jnp.concatenate(mixed, axis=-2), queries)


def _heads_first(
    queries: Float[Array, "b t h k"], keys: Float[Array, "b s g k"], values: Float[Array, "b s g k"]
) -> tuple[Float[Array, "b g r t k"], Float[Array, "b g s k"], Float[Array, "b g s k"]]:
    """Heads in front of positions: what is multiplied then lies together, which a CPU does much faster."""
    if queries.dtype == jnp.float16 and jax.default_backend() == "cpu":
        # XLA's CPU has no product of float16 that adds up in float32.
        queries, keys, values = (array.astype(jnp.float32) for array in (queries, keys, values))
    q = rearrange(queries, "b t (g r) k -> b g r t k", g=keys.shape[2])
    k, v = (rearrange(array, "b s g k -> b g s k") for array in (keys, values))
    return q, k, v


def _positions_first(
    mixed: Float[Array, "b g r t k"], queries: Float[Array, "b t h k"]
) -> Float[Array, "b t h k"]:
    """Back to the queries' layout and dtype."""
    return rearrange(mixed, "b g r t k -> b t (g r) k").astype(queries.dtype)


def _mixed(
    q: Float[Array, "b g r t k"],
    k: Float[Array, "b g s k"],
    v: Float[Array, "b g s k"],
    mask: Bool[Array | np.ndarray, "#b #t s"] | None,
) -> Float[Array, "b g r t k"]:
    """Attention with its softmax in float32, divided by its sum after the values are added up."""
    repeats, rows = q.shape[2], rearrange(q, "b g r t k -> b g (r t) k")
    scores = jnp.einsum("bgtk,bgsk->bgts", rows, k, preferred_element_type=jnp.float32)
    scores *= q.shape[-1] ** -0.5
    if mask is not None:
        same = repeats == 1 or mask.shape[1] == 1
        visible = mask if same else jnp.tile(mask, (1, repeats, 1))
        scores = jnp.where(visible[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    mixed = jnp.einsum("bgts,bgsk->bgtk", weights.astype(v.dtype), v) / total.astype(v.dtype)
    return rearrange(mixed, "b g (r t) k -> b g r t k", r=repeats)


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
