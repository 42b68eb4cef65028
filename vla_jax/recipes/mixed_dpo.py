"""Mixed DPO: of every example, by a coin, the pair of the data or one sampled from the policy.

loss = alpha L(chosen, rejected) + (1 - alpha) L(sampled, judged), alpha ~ Bernoulli(p): the alignment study's
Eq. 4. The coin falls before anything is judged, so that only pairs which count are asked about.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from vla_jax.data import Batch
from vla_jax.objectives import bernoulli_mixture, dpo
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
    """Settings of mixed DPO.

    Attributes:
      probability: p, of taking the pair of the data.
      beta: scale of the rewards.
      temperature: of the sampling.
      cut_loses: an answer that was cut loses against one that ended, whatever the judge says.
      epochs: passes over the pairs of a step.
      minibatches: updates a pass.
    """

    probability: float = 0.5
    beta: float = 0.1
    temperature: float = 1.0
    cut_loses: bool = False
    epochs: int = 1
    minibatches: int = 1


def recipe(options: Options) -> Recipe:
    """Two candidates, the better and the worse answer of whichever pair was taken."""
    chosen, rejected = 0, 1

    def collect(policy: Policy, batch: Batch) -> Collected:
        data = host(batch)
        offline = _coins(policy.key, data.record_ids, options.probability)
        pairs = judged_pairs(policy, batch, options.temperature, options.cut_loses, asked=~offline)
        sampled, usable = pairs.batch, offline | pairs.decided
        mixed = _mixed(data, sampled, offline)
        counted = mixed._replace(weights=np.where(usable, data.weights, 0))
        rows = data.weights > 0
        return Collected(
            with_reference(counted, host(policy.scores(mixed))),
            {
                **pairs.metrics,
                "offline": float(offline[rows].mean()) if rows.any() else 0.0,
                **divergence_metrics(host(policy.scores(sampled)), data.weights),
                **answer_metrics(sampled, policy.end_ids),
            },
            shown(
                policy.records(),
                policy.texts(sampled.response_tokens, sampled.response_mask),
                judge=[[reply] * 2 for reply in pairs.replies],
                learnt_from=[["the data" if coin else "these"] * 2 for coin in offline],
            ),
        )

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        losses = dpo(rewards[:, chosen], rewards[:, rejected])
        return per_example(losses, preference_metrics(scores, rewards, chosen, rejected))

    return Recipe(
        responses=("chosen", "rejected"),
        view_names=("image",),
        make_views=original,
        candidates=(Candidate(0, chosen), Candidate(0, rejected)),
        objective=objective,
        tile_by_tile=True,
        rollout=Rollout(collect, epochs=options.epochs, minibatches=options.minibatches, judge=True),
    )


def _coins(key: jax.Array, record_ids: Int[np.ndarray, " b"], probability: float) -> Bool[np.ndarray, " b"]:
    """Which examples keep the pair of the data: a coin a record and step, whatever its batch mates."""
    keys = jax.vmap(lambda record: jax.random.fold_in(key, record))(jnp.asarray(record_ids))
    sides = jnp.ones(len(record_ids)), jnp.zeros(len(record_ids))
    return np.asarray(bernoulli_mixture(keys, *sides, probability)) > 0


def _mixed(data: Batch, sampled: Batch, offline: Bool[np.ndarray, " b"]) -> Batch:
    """The pairs of the data where `offline`, else the sampled ones, padded to the longer of both."""
    length = max(data.response_tokens.shape[2], sampled.response_tokens.shape[2])

    def taken(name: str) -> np.ndarray:
        sides = [
            np.pad(column, ((0, 0), (0, 0), (0, length - column.shape[2])))
            for column in (getattr(data, name), getattr(sampled, name))
        ]
        return np.where(offline[:, None, None], *sides)

    tokens, mask, scored = map(taken, ("response_tokens", "response_mask", "scored"))
    return sampled._replace(response_tokens=tokens, response_mask=mask, scored=scored)
