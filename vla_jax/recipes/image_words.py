"""Teaches a vision tower to see before a language model is asked to speak.

The image tokens must name the words of the answers by themselves, as a bag. No language model runs: XLA drops
what an objective does not read of the scores. It stands in for CLIP's pretraining where a small model is
trained from scratch.
"""

from dataclasses import dataclass

from vla_jax.recipes.recipe import Objective, Recipe, original, per_example
from vla_jax.scoring import Candidate, Scores


@dataclass(frozen=True)
class Options:
    """This recipe has no options."""


def recipe(options: Options) -> Recipe:
    """One candidate, of which only the image's own words are read."""

    def objective(scores: Scores) -> Objective:
        assert scores.image_words is not None
        return per_example(-scores.image_words[:, 0], {"logps/image_words": scores.image_words[:, 0]})

    return Recipe(
        responses=("chosen",),
        view_names=("image",),
        make_views=original,
        candidates=(Candidate(view=0, response=0),),
        objective=objective,
        tile_by_tile=True,
        needs_reference=False,
        image_words=True,
    )
