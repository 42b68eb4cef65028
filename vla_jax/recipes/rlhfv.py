"""RLHF-V: preferences in which the corrected words count more (Yu et al. 2023, arXiv:2312.00849).

An annotator mends a few words of an answer. The log-probability of either answer then weights the tokens
that set the two apart, so that the pair is decided by the correction and not by what it left alone.
"""

from dataclasses import dataclass

from vla_jax.objectives import dpo, weighted_log_probs
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import Objective, Recipe, pair_of_answers, per_example
from vla_jax.scoring import Scores


@dataclass(frozen=True)
class Options:
    """Settings of RLHF-V, with the paper's defaults.

    Attributes:
      beta: scale of the rewards; the released run used 0.1.
      changed_weight: lambda, the weight of changed tokens; the released run used 1.1.
      length_normalize: log-probabilities are weighted means over tokens; the released run used sums.
      label_smoothing: assumed share of wrong labels.
    """

    beta: float = 0.5
    changed_weight: float = 5.0
    length_normalize: bool = True
    label_smoothing: float = 0.0


def recipe(options: Options) -> Recipe:
    """Two candidates: the corrected and the uncorrected response under the image."""
    chosen, rejected = 0, 1

    def objective(scores: Scores) -> Objective:
        assert scores.changed is not None and scores.reference_tokens is not None
        # The mean is linear: the weighted mean of differences is the difference of weighted means.
        ratios = weighted_log_probs(
            scores.policy_tokens - scores.reference_tokens,
            scores.mask,
            scores.changed,
            options.changed_weight,
            options.length_normalize,
        )
        rewards = options.beta * ratios
        losses = dpo(rewards[:, chosen], rewards[:, rejected], options.label_smoothing)
        return per_example(losses, preference_metrics(scores, rewards, chosen, rejected))

    return pair_of_answers(objective, changes=True)
