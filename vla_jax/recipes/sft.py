"""Supervised fine-tuning: cross-entropy of the chosen answer and of the turns that follow it."""

from dataclasses import dataclass

from vla_jax.objectives import negative_log_likelihood
from vla_jax.recipes.recipe import Objective, Recipe, original
from vla_jax.scoring import Candidate, Scores


@dataclass(frozen=True)
class Options:
    """Supervised fine-tuning has no options."""


def recipe(options: Options) -> Recipe:
    """One candidate, no reference; the loss is a mean over tokens."""

    def objective(scores: Scores) -> Objective:
        losses, tokens = negative_log_likelihood(scores.policy_tokens[:, 0], scores.mask[:, 0])
        return Objective(losses, tokens, {"logps/chosen": scores.policy[:, 0]})

    return Recipe(
        responses=("chosen",),
        view_names=("image",),
        make_views=original,
        candidates=(Candidate(view=0, response=0),),
        objective=objective,
        tile_by_tile=True,
        needs_reference=False,
        further_turns=True,
    )
