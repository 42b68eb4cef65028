"""The metrics that every preference recipe logs, under the names that TRL's users know."""

from collections.abc import Mapping

from jaxtyping import Array, Float

from vla_jax.scoring import Scores


def preference_metrics(
    scores: Scores, rewards: Float[Array, "b c"], chosen: int, rejected: int
) -> Mapping[str, Float[Array, " b"]]:
    """Rewards, log-probabilities and mean logits of the chosen and the rejected candidate.

    Logits are a mean of every example's own mean; TRL's are one mean over all tokens of a batch.

    Args:
      scores: of all candidates.
      rewards: beta times their log-ratios.
      chosen, rejected: indices of the two candidates.
    """
    margins = rewards[:, chosen] - rewards[:, rejected]
    logits = {}
    if scores.mean_logits is not None:
        logits = {
            "logits/chosen": scores.mean_logits[:, chosen],
            "logits/rejected": scores.mean_logits[:, rejected],
        }
    return {
        "rewards/chosen": rewards[:, chosen],
        "rewards/rejected": rewards[:, rejected],
        "rewards/margins": margins,
        "rewards/accuracies": (margins > 0).astype(rewards.dtype),
        "logps/chosen": scores.policy[:, chosen],
        "logps/rejected": scores.policy[:, rejected],
        **logits,
    }
