"""Log-probabilities of responses in which some tokens count more than others."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def weighted_log_probs(
    token_log_probs: Float[Array, "*b t"],
    mask: Bool[Array, "*b t"],
    changed: Bool[Array, "*b t"],
    changed_weight: float = 5.0,
    mean: bool = True,
) -> Float[Array, "*b"]:
    """Log-probability of a response in which the tokens that a correction changed weigh more.

    (1 / N) [sum over unchanged log p + lambda sum over changed log p], N = unchanged + lambda changed tokens.
    Policy minus reference of it, times beta, is the reward of a pair in which only a few words differ.

    Args:
      token_log_probs: log-probability of each token.
      mask: True at tokens that count at all.
      changed: True at tokens by which the response differs from its counterpart.
      changed_weight: lambda; 5 in the paper of RLHF-V, 1.1 in its released run.
      mean: divide by N, as the paper has it; False sums, as the released run did.

    Returns:
      One value an example; 0 where no token counts.

    Source: Yu et al. 2023 (RLHF-V, arXiv:2312.00849), dense direct preference optimisation.
    """
    weights = jnp.where(mask, jnp.where(changed, changed_weight, 1.0), 0.0).astype(token_log_probs.dtype)
    total = jnp.sum(weights * jnp.where(mask, token_log_probs, 0), axis=-1)
    if not mean:
        return total
    weight = jnp.sum(weights, axis=-1)
    return total / jnp.where(weight > 0, weight, 1)
