"""Losses on pairs of rewards."""

import jax
import jax.numpy as jnp
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


def ipo(preferred: Float[Array, "*b"], other: Float[Array, "*b"], beta: float) -> Float[Array, "*b"]:
    """Identity preference optimisation: (h - 1 / (2 beta))^2 with h = preferred - other.

    It asks for one margin instead of an ever wider one.

    Args:
      preferred: log policy - log reference of the preferred candidates, not scaled by beta. Their means over
        tokens, as its authors' and TRL's results were made, or their sums: the caller forms them.
      other: the same of the other candidates.
      beta: the weight of staying near the reference, > 0; the margin asked for is 1 / (2 beta).

    Returns:
      One loss an example; 1 / (4 beta^2) where the log-ratios are equal.

    Source: Azar et al. 2023 (arXiv:2310.12036), Eq. 17, where beta is called tau.
    """
    return jnp.square(preferred - other - 1 / (2 * beta))


def hinge(preferred: Float[Array, "*b"], other: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Sequence-likelihood calibration (SLiC) on rewards: max(0, 1 - (preferred - other)).

    Args:
      preferred: rewards beta (log policy - log reference) of the preferred candidates.
      other: rewards of the other candidates.

    Returns:
      One loss an example; 1 where the rewards are equal, 0 (and no gradient) from a margin of 1 on.

    Source: Zhao et al. 2023 (arXiv:2305.10425), on rewards as in Liu et al. 2023 (arXiv:2309.06657).
    """
    return jax.nn.relu(1 - (preferred - other))


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
