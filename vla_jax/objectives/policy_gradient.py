"""The clipped policy gradient on tokens that have a reward, or advantage, each."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Beyond these ratios (5e8 and 2e-9) a token has left every trust region: it keeps its loss and loses its
# gradient, where exp would overflow.
MAX_LOG_RATIO = 20.0


def clipped_policy_loss(
    log_probs: Float[Array, "*b t"],
    rollout_log_probs: Float[Array, "*b t"],
    advantages: Float[Array, "*b t"],
    mask: Bool[Array, "*b t"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    paper_clip: bool = False,
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """The surrogate of proximal policy optimisation, token by token, as a sum and its denominator.

    -sum over t of min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho = exp(log p - rollout log p)

    Args:
      log_probs: of each token under the policy.
      rollout_log_probs: of the same tokens under the policy that sampled them (or another that the ratio is
        taken against); held constant.
      advantages: A, what each token is worth; held constant.
      mask: True at tokens that count.
      clip_low, clip_high: how far the ratio may fall or rise before it stops being rewarded; TRL's `epsilon`
        and `epsilon_high`.
      paper_clip: min(rho, clip(rho)) A as FiSAO prints it. The same for A > 0; for A < 0 the ratio is clipped
        above instead of below: a bad token that became likelier is no longer pushed down, one that became
        unlikelier is pushed on.

    Returns:
      The summed loss of each row, and how many tokens it sums.

    Source: Schulman et al. 2017 (arXiv:1707.06347), Eq. 7, on FiSAO's token rewards (its Eq. 13).
    """
    ratios = _ratios(log_probs, rollout_log_probs, mask)
    clipped = jnp.clip(ratios, 1 - clip_low, 1 + clip_high)
    worth = jnp.where(mask, jax.lax.stop_gradient(advantages), 0)
    if paper_clip:
        gains = jnp.minimum(ratios, clipped) * worth
    else:
        gains = jnp.minimum(ratios * worth, clipped * worth)
    return -jnp.sum(gains, axis=-1), jnp.sum(mask, axis=-1).astype(jnp.float32)


def clipped_tokens(
    log_probs: Float[Array, "*b t"],
    rollout_log_probs: Float[Array, "*b t"],
    advantages: Float[Array, "*b t"],
    mask: Bool[Array, "*b t"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    paper_clip: bool = False,
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Counts the tokens whose gradient the clipping takes away.

    Args:
      log_probs, rollout_log_probs, advantages, mask, clip_low, clip_high, paper_clip: those of
        `clipped_policy_loss`.

    Returns:
      How many tokens of each row are clipped because their ratio fell below 1 - clip_low, and because it rose
      above 1 + clip_high. Over the loss's number of tokens they are TRL's `clip_ratio/low_mean` and
      `clip_ratio/high_mean`.
    """
    ratios = _ratios(log_probs, rollout_log_probs, mask)
    fallen, risen = ratios < 1 - clip_low, ratios > 1 + clip_high
    if paper_clip:
        low, high = jnp.zeros_like(mask), mask & risen & (advantages != 0)
    else:
        low, high = mask & fallen & (advantages < 0), mask & risen & (advantages > 0)
    return jnp.sum(low, axis=-1).astype(jnp.float32), jnp.sum(high, axis=-1).astype(jnp.float32)


def _ratios(
    log_probs: Float[Array, "*b t"], rollout_log_probs: Float[Array, "*b t"], mask: Bool[Array, "*b t"]
) -> Float[Array, "*b t"]:
    """Policy over rollout policy; 1, with no gradient, at tokens that do not count."""
    log_ratios = jnp.where(mask, log_probs - jax.lax.stop_gradient(rollout_log_probs), 0)
    return jnp.exp(jnp.clip(log_ratios, -MAX_LOG_RATIO, MAX_LOG_RATIO))
