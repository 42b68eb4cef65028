"""The supervised loss."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def negative_log_likelihood(
    token_log_probs: Float[Array, "*b t"], mask: Bool[Array, "*b t"]
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Cross-entropy of the scored tokens as a sum and its denominator.

    They stay apart so that averages over a batch, its micro-batches and its devices weight every token alike.

    Args:
      token_log_probs: log-probability of each token.
      mask: True at tokens that count.

    Returns:
      The summed negative log-likelihood of each row, and how many tokens it sums.
    """
    return -jnp.sum(jnp.where(mask, token_log_probs, 0), axis=-1), jnp.sum(mask, axis=-1).astype(jnp.float32)
