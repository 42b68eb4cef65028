"""DPO: direct preference optimisation on the original image (Rafailov et al. 2023, arXiv:2305.18290)."""

from dataclasses import dataclass

from vla_jax.objectives import dpo
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import Objective, Recipe, pair_of_answers, per_example
from vla_jax.scoring import Scores


@dataclass(frozen=True)
class Options:
    """Settings of DPO.

    Attributes:
      beta: scale of the rewards.
      label_smoothing: assumed share of wrong labels.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0


def recipe(options: Options) -> Recipe:
    """Two candidates: the chosen and the rejected response under the image."""
    chosen, rejected = 0, 1

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        losses = dpo(rewards[:, chosen], rewards[:, rejected], options.label_smoothing)
        return per_example(losses, preference_metrics(scores, rewards, chosen, rejected))

    return pair_of_answers(objective)
