"""Losses on pairs of rewards."""

import jax
from jaxtyping import Array, Float


def dpo(
    preferred: Float[Array, "*b"], other: Float[Array, "*b"], label_smoothing: float = 0.0
) -> Float[Array, "*b"]:
    """Direct preference optimisation: -log sigmoid(preferred - other).

    The same formula compares two responses under one view (DPO), or one response under two views (mDPO's
    conditional term).

    Args:
      preferred: rewards beta (log policy - log reference) of the preferred candidates.
      other: rewards of the other candidates.
      label_smoothing: epsilon, the assumed share of wrong labels (cDPO), in [0, 0.5).

    Returns:
      One loss an example; log 2 where the rewards are equal.

    Source: Rafailov et al. 2023 (arXiv:2305.18290), Eq. 7; label smoothing: Mitchell 2023.
    """
    margin = preferred - other
    loss = -jax.nn.log_sigmoid(margin)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * jax.nn.log_sigmoid(-margin)
    return loss


def anchor(reward: Float[Array, "*b"], delta: float = 0.0) -> Float[Array, "*b"]:
    """Keeps the likelihood of a preferred response from falling: -log sigmoid(reward - delta).

    Args:
      reward: beta (log policy - log reference) of the chosen response.
      delta: the reward it is anchored at.

    Returns:
      One loss an example; log 2 at reward = delta.

    Source: Wang et al. 2024 (mDPO, arXiv:2406.11839), Eq. 7.
    """
    return -jax.nn.log_sigmoid(reward - delta)
