"""SLiC: sequence-likelihood calibration on the original image (Zhao et al. 2023, arXiv:2305.10425).

A hinge on the margin of rewards: pairs that are told apart by 1 are left alone.
"""

from dataclasses import dataclass

from vla_jax.objectives import hinge
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import Objective, Recipe, pair_of_answers, per_example
from vla_jax.scoring import Scores


@dataclass(frozen=True)
class Options:
    """Settings of SLiC.

    Attributes:
      beta: scale of the rewards; a margin of 1 / beta in log-ratios is enough.
    """

    beta: float = 0.1


def recipe(options: Options) -> Recipe:
    """Two candidates: the chosen and the rejected response under the image."""
    chosen, rejected = 0, 1

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        losses = hinge(rewards[:, chosen], rewards[:, rejected])
        return per_example(losses, preference_metrics(scores, rewards, chosen, rejected))

    return pair_of_answers(objective)
