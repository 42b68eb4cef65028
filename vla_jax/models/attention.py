"""Attention behind one function, so that a backend can change without a model knowing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attention(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b s g k"],
    values: Float[Array, "b s g k"],
    mask: Bool[Array, "#b #t s"] | None = None,
) -> Float[Array, "b t h k"]:
    """Scaled dot-product attention, softmax in float32.

    Args:
      queries: [b t h k].
      keys, values: [b s g k]; g divides h, and each key head serves h / g query heads (grouped-query).
      mask: True where a query may see a key; None lets every query see every key. A query that may see
        nothing (padding) gets an average of the values, never a NaN.
    """
    if mask is not None:
        mask = mask[:, None]
    dtype = queries.dtype
    if dtype == jnp.float16 and jax.default_backend() == "cpu":
        # XLA's CPU has no product of float16 that adds up in float32.
        queries, keys, values = (array.astype(jnp.float32) for array in (queries, keys, values))
    return jax.nn.dot_product_attention(queries, keys, values, mask=mask).astype(dtype)
