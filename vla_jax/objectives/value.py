"""The loss of a value head."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def clipped_value_loss(
    values: Float[Array, "*b t"],
    rollout_values: Float[Array, "*b t"],
    returns: Float[Array, "*b t"],
    mask: Bool[Array, "*b t"],
    clip: float = 0.2,
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Half the squared error of the values, which gain nothing by moving further than `clip` at a time.

    1/2 sum over t of max((V - R)^2, (clip(V, V_rollout - clip, V_rollout + clip) - R)^2)

    Args:
      values: V, of each token, what is expected before it is chosen.
      rollout_values: the same when the answers were sampled; held constant.
      returns: R, what then came; held constant.
      mask: True at tokens that count.
      clip: how far a value may move, in units of reward.

    Returns:
      The summed loss of each row, and how many tokens it sums.

    Source: TRL's PPO trainer, after Baselines' PPO2 (Dhariwal et al. 2017).
    """
    then, target = jax.lax.stop_gradient((rollout_values, returns))
    # Where nothing counts there may be anything; a difference of 0 has no gradient.
    moved, target = jnp.where(mask, values - then, 0), jnp.where(mask, target - then, 0)
    errors = jnp.maximum(jnp.square(moved - target), jnp.square(jnp.clip(moved, -clip, clip) - target))
    return jnp.sum(errors, axis=-1) / 2, jnp.sum(mask, axis=-1).astype(jnp.float32)
