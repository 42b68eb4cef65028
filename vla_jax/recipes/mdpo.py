"""mDPO: preferences over images beside those over text, and an anchor (Wang et al. 2024, arXiv:2406.11839).

loss = DPO(w, l | image) + DPO(image, crop | w) + anchor(w | image): the chosen answer must beat the rejected
one, must be likelier under the image than under a small random crop of it, and must not lose likelihood.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from vla_jax.objectives import anchor, dpo
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import KeyObject, Objective, Recipe, per_example
from vla_jax.scoring import Candidate, Scores
from vla_jax.views import random_resized_crop


@dataclass(frozen=True)
class Options:
    """Settings of mDPO.

    Attributes:
      beta: scale of the rewards.
      label_smoothing: assumed share of wrong labels of the text pair.
      conditional_weight: weight of the preference over images.
      anchor_weight: weight of the anchor.
      anchor_delta: the reward the chosen answer is anchored at; the paper's code uses 0.
      crop_area: smallest and largest share of the image that the crop keeps.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    conditional_weight: float = 1.0
    anchor_weight: float = 1.0
    anchor_delta: float = 0.0
    crop_area: tuple[float, float] = (0.01, 0.2)


def recipe(options: Options) -> Recipe:
    """Three candidates: the pair under the image, and the chosen response under a crop of it."""
    chosen, rejected, cropped = 0, 1, 2
    smallest, largest = options.crop_area

    def make_views(
        image: UInt8[Array, "y x 3"], key_object: KeyObject, key: PRNGKeyArray
    ) -> UInt8[Array, "2 y x 3"]:
        del key_object
        return jnp.stack([image, random_resized_crop(image, key, area=(smallest, largest))])

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        text = dpo(rewards[:, chosen], rewards[:, rejected], options.label_smoothing)
        conditional = dpo(rewards[:, chosen], rewards[:, cropped])
        anchored = anchor(rewards[:, chosen], options.anchor_delta)
        losses = text + options.conditional_weight * conditional + options.anchor_weight * anchored
        metrics = {
            **preference_metrics(scores, rewards, chosen, rejected),
            "rewards/cropped": rewards[:, cropped],
            "loss/text": text,
            "loss/conditional": conditional,
            "loss/anchor": anchored,
        }
        return per_example(losses, metrics)

    return Recipe(
        responses=("chosen", "rejected"),
        view_names=("image", "random crop"),
        make_views=make_views,
        candidates=(
            Candidate(view=0, response=0),
            Candidate(view=0, response=1),
            Candidate(view=1, response=0),
        ),
        objective=objective,
    )
