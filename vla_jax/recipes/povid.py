"""POVID: rejected answers from a noised image (Zhou et al. 2024, arXiv:2402.11411; the alignment study, 3.3).

Beside the pair of the data stands a second rejected answer: what the model holds likeliest, token by token of
the chosen answer, when the image is drowned in diffusion noise. So it says what the text alone suggests. It
is fixed once a record, by the model that training starts from. loss = the average of the two pairs' losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from vla_jax.objectives import dpo, gamma_average
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import KeyObject, Objective, Recipe, per_example
from vla_jax.scoring import Candidate, Scores, TeacherForced
from vla_jax.views import diffusion_noise

# Its options as they are: the answers are made without training anyway.
CONSTRUCTING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Options:
    """Settings of POVID.

    Attributes:
      beta: scale of the rewards.
      gamma: weight of the data's pair; the pair with the noised answer has the rest.
      noise_step: steps of the diffusion that the image goes through, of 1,000.
      reference_compatible: let bytes out of range wrap, as the released code does, instead of clipping them.
      label_smoothing: assumed share of wrong labels of the data's pair.
    """

    beta: float = 0.1
    gamma: float = 0.5
    noise_step: int = 500
    reference_compatible: bool = False
    label_smoothing: float = 0.0


def recipe(options: Options) -> Recipe:
    """Three candidates, all under the image: chosen, rejected, and what the noised image made of chosen."""
    chosen, rejected, noised = 0, 1, 2

    def make_views(
        image: UInt8[Array, "y x 3"], key_object: KeyObject, key: PRNGKeyArray
    ) -> UInt8[Array, "2 y x 3"]:
        del key_object
        noise = diffusion_noise(
            image, key, step=options.noise_step, reference_compatible=options.reference_compatible
        )
        return jnp.stack([image, noise])

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        text = dpo(rewards[:, chosen], rewards[:, rejected], options.label_smoothing)
        made = dpo(rewards[:, chosen], rewards[:, noised])
        metrics = {
            **preference_metrics(scores, rewards, chosen, rejected),
            "rewards/noised": rewards[:, noised],
            "loss/text": text,
            "loss/noised": made,
        }
        return per_example(gamma_average(text, made, options.gamma), metrics)

    return Recipe(
        responses=("chosen", "rejected"),
        view_names=("image", "noised, to make an answer"),
        make_views=make_views,
        candidates=(Candidate(0, chosen), Candidate(0, rejected), Candidate(0, noised)),
        objective=objective,
        made=(TeacherForced(view=1, response=chosen),),
        made_roles=("noised",),
        tile_by_tile=True,
    )
