"""Online DPO: preferences between the policy's own answers (Guo et al. 2024, arXiv:2402.04792).

Two answers to every prompt are sampled, a judge says which is better, and the pair is learnt from as DPO
does. Where it prefers neither, the row counts for nothing. The alignment study, 3.1 and 5.6.
"""

from dataclasses import dataclass

import numpy as np

from vla_jax.data import Batch
from vla_jax.objectives import dpo
from vla_jax.recipes.answers import (
    answer_metrics,
    divergence_metrics,
    host,
    shown,
    with_reference,
)
from vla_jax.recipes.judged_pairs import judged_pairs
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import Objective, Recipe, original, per_example
from vla_jax.recipes.rollouts import Collected, Policy, Rollout
from vla_jax.scoring import Candidate, Scores


@dataclass(frozen=True)
class Options:
    """Settings of online DPO.

    Attributes:
      beta: scale of the rewards.
      temperature: of the sampling.
      cut_loses: an answer that was cut loses against one that ended, whatever the judge says.
      epochs: passes over the pairs of a step.
      minibatches: updates a pass.
    """

    beta: float = 0.1
    temperature: float = 1.0
    cut_loses: bool = False
    epochs: int = 1
    minibatches: int = 1


def recipe(options: Options) -> Recipe:
    """Two candidates, the preferred and the other answer, both sampled under the image."""
    preferred, other = 0, 1

    def collect(policy: Policy, batch: Batch) -> Collected:
        pairs = judged_pairs(policy, batch, options.temperature, options.cut_loses)
        batch = pairs.batch
        scores = host(policy.scores(batch))
        counted = batch._replace(weights=np.where(pairs.decided, batch.weights, 0))
        return Collected(
            with_reference(counted, scores),
            {
                **pairs.metrics,
                **divergence_metrics(scores, batch.weights),
                **answer_metrics(batch, policy.end_ids),
            },
            shown(
                policy.records(),
                policy.texts(batch.response_tokens, batch.response_mask),
                judge=[[reply] * 2 for reply in pairs.replies],
            ),
        )

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        losses = dpo(rewards[:, preferred], rewards[:, other])
        return per_example(losses, preference_metrics(scores, rewards, preferred, other))

    return Recipe(
        responses=(),
        view_names=("image",),
        make_views=original,
        candidates=(Candidate(0, preferred), Candidate(0, other)),
        objective=objective,
        tile_by_tile=True,
        rollout=Rollout(collect, epochs=options.epochs, minibatches=options.minibatches, judge=True),
    )
