"""Losses on ranked lists of rewards."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def plackett_luce(ranked: Float[Array, "*b k"], top: int | None = None) -> Float[Array, "*b"]:
    """Negative log-likelihood of a ranking under the Plackett-Luce model.

    -sum_{i <= top} [ranked_i - log sum_{j >= i} exp ranked_j]: places are filled from the best down, each
    with a softmax over what is left. With k = 2 it is `dpo`.

    Args:
      ranked: rewards, the item ranked best first.
      top: only the first `top` places count: 1 asks that the first beats all others, whatever their order;
        None takes the full ranking.

    Returns:
      One loss an example; log k! for a full ranking of equal rewards, log k for top = 1.

    Source: LPOI, Eq. 5 (full list); AdaViP, Eq. 6 (top-1).
    """
    # Every suffix's log-sum-exp in one reversed scan, stable for rewards of any size.
    remaining = jax.lax.cumlogsumexp(ranked, axis=ranked.ndim - 1, reverse=True)
    places = remaining - ranked
    return jnp.sum(places[..., : ranked.shape[-1] - 1 if top is None else top], axis=-1)
