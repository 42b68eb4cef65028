"""How far the policy has gone from the reference, estimated on its own tokens, and what that costs."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vla_jax.objectives.policy_gradient import MAX_LOG_RATIO


def kl_estimate(
    log_probs: Float[Array, "*b t"],
    reference_log_probs: Float[Array, "*b t"],
    kind: Literal["k1", "k2", "k3"] = "k1",
) -> Float[Array, "*b t"]:
    """Estimates KL(policy || reference) at every token that the policy sampled.

    With d = log policy - log reference: k1 = d, unbiased and negative where the reference likes the token
    better; k2 = d^2 / 2, never negative, biased; k3 = exp(-d) - 1 + d, never negative and unbiased.

    Args:
      log_probs: of the tokens under the policy.
      reference_log_probs: the same under the reference.
      kind: which estimate.

    Returns:
      One estimate a token, whose mean over samples is the divergence. Where the reference holds a token
      exp(20) times likelier than the policy, k3's exponential grows no further.

    Raises:
      ValueError: where there is no such estimate.

    Source: Schulman 2020, Approximating KL divergence (joschu.net/blog/kl-approx.html).
    """
    ratios = log_probs - reference_log_probs
    if kind == "k1":
        return ratios
    if kind == "k2":
        return jnp.square(ratios) / 2
    if kind == "k3":
        return jnp.expm1(jnp.minimum(-ratios, MAX_LOG_RATIO)) + ratios
    raise ValueError(f"kl_estimate: there is no estimate {kind!r}; choose k1, k2 or k3")


def penalised_rewards(
    rewards: Float[Array, "*b"],
    kl: Float[Array, "*b t"],
    mask: Bool[Array, "*b t"],
    beta: float,
) -> Float[Array, "*b t"]:
    """Rewards of tokens: each pays for its divergence, the last one receives what the whole answer earned.

    Args:
      rewards: of whole answers.
      kl: divergence at each token, see `kl_estimate`.
      mask: True at the answer's tokens, which stand without a gap from the left.
      beta: price of a nat.

    Returns:
      -beta kl_t, and at the last token + reward; 0 at padding. An answer without a token gets nothing.

    Source: Ziegler et al. 2019 (arXiv:1909.08593), Eq. 2, as in the PPO of Ouyang et al. 2022.
    """
    places = jnp.arange(mask.shape[-1])
    last = mask & (places == jnp.max(jnp.where(mask, places, -1), axis=-1, keepdims=True))
    return jnp.where(last, rewards[..., None], 0) - beta * jnp.where(mask, kl, 0)
