"""A reward model: one number for an answer under its image, learnt from pairs (the alignment study, 3.2).

A linear layer reads the language model's state at the answer's last token. Nothing is sampled or compared
with a reference; the model that comes out judges for the methods that roll out.
"""

from dataclasses import dataclass

from vla_jax.objectives import bradley_terry
from vla_jax.recipes.recipe import Objective, Recipe, pair_of_answers, per_example
from vla_jax.scoring import Scores


@dataclass(frozen=True)
class Options:
    """Settings of the reward model.

    Attributes:
      margin: how far apart the two rewards should at least be.
      center_rewards_coefficient: weight of keeping rewards around 0 (TRL's name; 0.01 is usual).
    """

    margin: float = 0.0
    center_rewards_coefficient: float = 0.0


def recipe(options: Options) -> Recipe:
    """Two candidates, of which only what the reward head says is read."""

    def objective(scores: Scores) -> Objective:
        assert scores.sequences is not None
        chosen, rejected = scores.sequences[:, 0], scores.sequences[:, 1]
        losses = bradley_terry(chosen, rejected, options.margin, options.center_rewards_coefficient)
        metrics = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).astype(losses.dtype),
        }
        return per_example(losses, metrics)

    return pair_of_answers(objective, needs_reference=False, sequences=True)
