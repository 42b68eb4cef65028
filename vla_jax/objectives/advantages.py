"""What an answer, or a token of it, was worth beside what was to be expected: inputs of a policy gradient.

All of it is computed once, where answers are sampled, and held constant while the policy learns from them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def leave_one_out(
    rewards: Float[Array, "*b k"], present: Bool[Array, "*b k"] | None = None
) -> Float[Array, "*b k"]:
    """Rewards of several answers to one prompt, each less the mean of the others.

    Args:
      rewards: of the k answers to each prompt.
      present: answers that have a reward; None where all have. The others are in no mean.

    Returns:
      The advantages; 0 where an answer has no reward, or stands alone with one.

    Source: Ahmadian et al. 2024 (RLOO, arXiv:2402.14740), Eq. 8; the alignment study, 5.5.
    """
    if present is None:
        present = jnp.ones(rewards.shape, bool)
    known = jnp.where(present, rewards, 0)
    others = jnp.sum(present, axis=-1, keepdims=True) - 1
    baseline = (jnp.sum(known, axis=-1, keepdims=True) - known) / jnp.maximum(others, 1)
    return jnp.where(present & (others > 0), known - baseline, 0)


def generalized_advantages(
    rewards: Float[Array, "*b t"],
    values: Float[Array, "*b t"],
    mask: Bool[Array, "*b t"],
    gamma: float = 1.0,
    lam: float = 1.0,
) -> tuple[Float[Array, "*b t"], Float[Array, "*b t"]]:
    """Generalised advantage estimates of every token, and the returns that a value head is to learn.

    A_t = sum over i >= 0 of (gamma lam)^i delta_{t+i}, delta_t = r_t + gamma V_{t+1} - V_t, and nothing
    follows the last token: an answer that was cut ends there too.

    Args:
      rewards: r_t, of each token.
      values: V_t, what was expected before the token was chosen.
      mask: True at the answer's tokens, which stand without a gap from the left.
      gamma: discount of what comes later.
      lam: 1 trusts the rewards that came, 0 the values.

    Returns:
      Advantages, and returns A_t + V_t; both 0 at padding.

    Source: Schulman et al. 2016 (arXiv:1506.02438), Eq. 16.
    """
    rewards, values = (jnp.where(mask, array, 0) for array in (rewards, values))
    following = jnp.concatenate([values[..., 1:], jnp.zeros_like(values[..., :1])], axis=-1)
    deltas = rewards + gamma * following - values

    def add(later: Float[Array, "*b"], delta: Float[Array, "*b"]) -> tuple[Array, Array]:
        advantage = delta + gamma * lam * later
        return advantage, advantage

    steps = jnp.moveaxis(deltas, -1, 0)
    _, advantages = jax.lax.scan(add, jnp.zeros_like(steps[0]), steps, reverse=True)
    advantages = jnp.where(mask, jnp.moveaxis(advantages, 0, -1), 0)
    return advantages, advantages + values


def whiten(
    values: Float[Array, "*b t"], mask: Bool[Array, "*b t"], shift_mean: bool = True
) -> Float[Array, "*b t"]:
    """Values scaled to mean 0 and variance 1 over all counted tokens of a batch.

    Args:
      values: one a token.
      mask: True at tokens that count.
      shift_mean: False keeps the mean.

    Returns:
      (values - mean) / sqrt(variance + 1e-8), 0 at tokens that do not count. The variance has n - 1 in its
      denominator; a single token has none.

    Source: the `masked_whiten` of TRL's PPO trainer.
    """
    count = jnp.sum(mask)
    mean = jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(count, 1)
    centred = jnp.where(mask, values - mean, 0)
    variance = jnp.sum(jnp.square(centred)) / jnp.maximum(count - 1, 1)
    whitened = centred * jax.lax.rsqrt(variance + 1e-8)
    return whitened if shift_mean else jnp.where(mask, whitened + mean, 0)


def standardised(rewards: Float[Array, "*b"], mean: float, standard_deviation: float) -> Float[Array, "*b"]:
    """Rewards on a scale on which those of some data set have mean 0 and variance 1.

    Unlike `whiten` it depends on no batch mate: mean and standard deviation were measured beforehand.

    Args:
      rewards: one an answer.
      mean, standard_deviation: of the rewards of the data set; the latter > 0.

    Source: the alignment study, Appendix A.
    """
    return (rewards - mean) / standard_deviation
