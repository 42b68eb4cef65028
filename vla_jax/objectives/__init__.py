"""Losses as pure functions of arrays, and the advantages and penalties that some of them are given.

They know no model, no trainer and no configuration object. A loss takes rewards
`beta (log policy - log reference)`, log-probabilities, masks or embeddings of whole batches and returns one
loss an example; where a loss is averaged over tokens, each row's sum and how many tokens are in it. Averaging
is the trainer's business. Arithmetic keeps the dtype it is given: scores arrive in float32.
"""

from vla_jax.objectives.advantages import (
    generalized_advantages,
    leave_one_out,
    standardised,
    whiten,
)
from vla_jax.objectives.averages import bernoulli_mixture, gamma_average
from vla_jax.objectives.contrastive import contrastive
from vla_jax.objectives.divergence import kl_estimate, penalised_rewards
from vla_jax.objectives.listwise import plackett_luce, rejection_weights
from vla_jax.objectives.policy_gradient import clipped_policy_loss, clipped_tokens
from vla_jax.objectives.preference import anchor, dpo, hinge, ipo
from vla_jax.objectives.reward import bradley_terry
from vla_jax.objectives.segmentation import (
    iou_preference,
    soft_iou,
    soft_iou_improvement,
    text_improvement,
)
from vla_jax.objectives.supervised import negative_log_likelihood
from vla_jax.objectives.token_rewards import Baselines, TokenRewards, verified_token_rewards
from vla_jax.objectives.value import clipped_value_loss
from vla_jax.objectives.weighted import weighted_log_probs

__all__ = [
    "Baselines",
    "TokenRewards",
    "anchor",
    "bernoulli_mixture",
    "bradley_terry",
    "clipped_policy_loss",
    "clipped_tokens",
    "clipped_value_loss",
    "contrastive",
    "dpo",
    "gamma_average",
    "generalized_advantages",
    "hinge",
    "iou_preference",
    "ipo",
    "kl_estimate",
    "leave_one_out",
    "negative_log_likelihood",
    "penalised_rewards",
    "plackett_luce",
    "rejection_weights",
    "soft_iou",
    "soft_iou_improvement",
    "standardised",
    "text_improvement",
    "verified_token_rewards",
    "weighted_log_probs",
    "whiten",
]
