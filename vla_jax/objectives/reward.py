"""The loss of a reward model."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def bradley_terry(
    chosen: Float[Array, "*b"],
    rejected: Float[Array, "*b"],
    margin: Float[Array, "*b"] | float = 0.0,
    centering: float = 0.0,
) -> Float[Array, "*b"]:
    """Negative log-likelihood of a preference under the Bradley-Terry model.

    -log sigmoid(chosen - rejected - margin) + centering (chosen + rejected)^2

    Args:
      chosen: the reward model's scores of the chosen responses.
      rejected: its scores of the rejected ones.
      margin: how far apart the scores should at least be; 0 asks for their order only.
      centering: TRL's `center_rewards_coefficient`: weight of keeping scores around 0, which the preference
        alone leaves free; 0.01 is usual.

    Returns:
      One loss an example; log 2 where the scores are 0 and no margin is asked for.

    Source: the alignment study's reward model; the margin: Touvron et al. 2023 (Llama 2, arXiv:2307.09288),
    Eq. 2; centering: Eisenstein et al. 2023 (arXiv:2312.09244), Eq. 2.
    """
    loss = -jax.nn.log_sigmoid(chosen - rejected - margin)
    if centering:
        loss = loss + centering * jnp.square(chosen + rejected)
    return loss
