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

    Source: LPOI, Eq. 1 (full list); AdaViP, Eq. 11 (top-1).
    """
    # Every suffix's log-sum-exp in one reversed scan, stable for rewards of any size.
    remaining = jax.lax.cumlogsumexp(ranked, axis=ranked.ndim - 1, reverse=True)
    places = remaining - ranked
    return jnp.sum(places[..., : ranked.shape[-1] - 1 if top is None else top], axis=-1)


def rejection_weights(rejected: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
    """Shares of a top-1 loss's gradient that the rejected candidates take: a softmax over their rewards.

    d plackett_luce([w, *rejected], top=1) / d rejected_j is this share times the push on w: the likelier a
    rejected candidate is, the harder it is pushed down. Worth logging; no part of the loss.

    Args:
      rejected: rewards of the rejected candidates.

    Returns:
      Weights that sum to 1; of two candidates, the sigmoid of their difference either way.

    Source: AdaViP, Eq. 12 and 13 (omega).
    """
    return jax.nn.softmax(rejected, axis=-1)
