"""LPOI: listwise preferences over progressively masked images.

The key object of the chosen answer is masked more and more; the chosen answer's rewards under these views
must fall in that order. loss = DPO(w, l | view 1) + anchor(w | view 1) + Plackett-Luce(w | views 1..L). The
candidate (view 1, w) is scored once and shared by all three terms.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from vla_jax.objectives import anchor, dpo, plackett_luce
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import KeyObject, Objective, Recipe, per_example
from vla_jax.scoring import Candidate, Scores
from vla_jax.views import progressive_masks


@dataclass(frozen=True)
class Options:
    """Settings of LPOI.

    Attributes:
      beta: scale of the rewards.
      num_views: L, views in the list, the untouched image counted; the paper uses 3 to 5.
      visual_prompt: outline the masked part with a red ellipse.
      outline_width: the ellipse's line width in pixels.
      text_weight, anchor_weight, list_weight: weights of the three terms.
      anchor_delta: the reward the chosen answer is anchored at; the paper's code uses 0.
      label_smoothing: assumed share of wrong labels of the text pair.

    Raises:
      ValueError: where there are fewer than 2 views.
    """

    beta: float = 0.1
    num_views: int = 5
    visual_prompt: bool = True
    outline_width: float = 2.0
    text_weight: float = 1.0
    anchor_weight: float = 1.0
    list_weight: float = 1.0
    anchor_delta: float = 0.0
    label_smoothing: float = 0.0


def recipe(options: Options) -> Recipe:
    """L + 1 candidates: the chosen response under every view, and the rejected one under the first."""
    views = options.num_views
    chosen, rejected = 0, views

    def make_views(
        image: UInt8[Array, "y x 3"], key_object: KeyObject, key: PRNGKeyArray
    ) -> UInt8[Array, "v y x 3"]:
        del key
        return progressive_masks(
            image, key_object.box, views, outline=options.visual_prompt, outline_width=options.outline_width
        )

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        ranked = rewards[:, :views]
        text = dpo(rewards[:, chosen], rewards[:, rejected], options.label_smoothing)
        anchored = anchor(rewards[:, chosen], options.anchor_delta)
        listwise = plackett_luce(ranked)
        losses = (
            options.text_weight * text + options.anchor_weight * anchored + options.list_weight * listwise
        )
        in_order = jnp.all(ranked[:, :-1] > ranked[:, 1:], axis=1)
        metrics = {
            **preference_metrics(scores, rewards, chosen, rejected),
            **{f"rewards/view_{i + 1}": ranked[:, i] for i in range(views)},
            "rewards/list_accuracies": in_order.astype(losses.dtype),
            "loss/text": text,
            "loss/anchor": anchored,
            "loss/list": listwise,
        }
        return per_example(losses, metrics)

    return Recipe(
        responses=("chosen", "rejected"),
        view_names=tuple(f"{round(100 * i / (views - 1))} % masked" for i in range(views)),
        make_views=make_views,
        candidates=(*(Candidate(view, 0) for view in range(views)), Candidate(view=0, response=1)),
        objective=objective,
        hides_key_object=True,
    )
