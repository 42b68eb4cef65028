"""AdaViP: the chosen answer against a rejected one and against an image without its key object, in one loss.

Plackett-Luce top-1 over (image, chosen), (image, rejected), (removed, chosen) weighs the two rejected
candidates by how likely each still is, so that neither text nor vision is learnt alone.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from vla_jax.objectives import dpo, plackett_luce, rejection_weights
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import KeyObject, Objective, Recipe, per_example
from vla_jax.scoring import Candidate, Scores
from vla_jax.views import remove_object

_WEIGHTINGS = ("adaptive", "equal", "text", "vision")


@dataclass(frozen=True)
class Options:
    """Settings of AdaViP.

    Attributes:
      beta: scale of the rewards.
      weighting: "adaptive" (the paper's method), "equal" (the sum of two DPO losses, its "+Vision"), "text"
        (DPO on the answers alone) or "vision" (DPO on the images alone).
      dilation: pixels by which the object's mask is widened before it is filled.

    Raises:
      ValueError: where there is no such weighting.
    """

    beta: float = 0.1
    weighting: str = "adaptive"
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.weighting not in _WEIGHTINGS:
            raise ValueError(
                f"options.adavip.weighting is {self.weighting!r}; choose one of {', '.join(_WEIGHTINGS)}"
            )


def recipe(options: Options) -> Recipe:
    """Three candidates: the pair under the image, and the chosen response where its object is removed."""
    chosen, rejected, removed = 0, 1, 2

    def make_views(
        image: UInt8[Array, "y x 3"], key_object: KeyObject, key: PRNGKeyArray
    ) -> UInt8[Array, "2 y x 3"]:
        del key
        assert key_object.mask is not None
        return jnp.stack([image, remove_object(image, key_object.mask, dilation=options.dilation)])

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        text = dpo(rewards[:, chosen], rewards[:, rejected])
        vision = dpo(rewards[:, chosen], rewards[:, removed])
        losses = {
            "adaptive": plackett_luce(rewards, top=1),
            "equal": text + vision,
            "text": text,
            "vision": vision,
        }[options.weighting]
        weights = rejection_weights(rewards[:, 1:])
        metrics = {
            **preference_metrics(scores, rewards, chosen, rejected),
            "rewards/removed": rewards[:, removed],
            "rewards/vision_margins": rewards[:, chosen] - rewards[:, removed],
            "weights/rejected": weights[:, 0],
            "weights/removed": weights[:, 1],
            "loss/text": text,
            "loss/vision": vision,
        }
        return per_example(losses, metrics)

    return Recipe(
        responses=("chosen", "rejected"),
        view_names=("image", "object removed"),
        make_views=make_views,
        candidates=(Candidate(0, 0), Candidate(0, 1), Candidate(1, 0)),
        objective=objective,
        hides_key_object=True,
        masks=True,
    )
