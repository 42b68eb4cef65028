"""Best of n: of the policy's own answers, the one that a reward model likes best (rejection sampling).

Several answers to every prompt are sampled and rated. With `pair` the best is learnt from against the worst,
as DPO does, and a row whose answers are rated alike counts for nothing; else the best alone, as supervised
fine-tuning does (RAFT, Dong et al. 2023, arXiv:2304.06767). `construct best_of_n` writes either beforehand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vla_jax.data import Batch
from vla_jax.objectives import dpo, negative_log_likelihood
from vla_jax.recipes.answers import answer_metrics, host, reward_metrics, shown
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import Objective, Recipe, original, per_example
from vla_jax.recipes.rollouts import Collected, Policy, Rollout, with_responses
from vla_jax.scoring import Candidate, Scores

# Its options as they are: a set holds what a round would learn from.
CONSTRUCTING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Options:
    """Settings of best of n.

    Attributes:
      samples: n, answers to a prompt; with `pair` an even number.
      temperature: of the sampling.
      pair: learn from the best against the worst; else from the best alone.
      beta: scale of DPO's rewards; read with `pair`.
    """

    samples: int = 4
    temperature: float = 1.0
    pair: bool = True
    beta: float = 0.1


def recipe(options: Options) -> Recipe:
    """One candidate, the best answer, or two, the best and the worst; of the data only prompts are read."""
    best, worst = 0, 1
    count = 2 if options.pair else 1
    if options.samples < 2 or options.samples % count:
        raise ValueError(f"options.best_of_n.samples is {options.samples}; of a pair it is even, at least 2")

    def collect(policy: Policy, batch: Batch) -> Collected:
        keys = _keys(policy.key, batch.record_ids, options.samples)
        answered = host(
            with_responses(batch, policy.sample(batch, options.samples, options.temperature, keys))
        )
        rewards = _rewards(policy, answered, count)
        order = np.stack([rewards.argmax(axis=1), rewards.argmin(axis=1)], axis=1)[:, :count]
        rated = np.isfinite(rewards).all(axis=1)
        if options.pair:
            rated &= rewards.max(axis=1) > rewards.min(axis=1)
        kept = _of_responses(answered, np.arange(len(order))[:, None], order)
        return Collected(
            kept._replace(weights=np.where(rated, kept.weights, 0)),
            {**reward_metrics(rewards, answered.weights), **answer_metrics(answered, policy.end_ids)},
            shown(
                policy.records(),
                policy.texts(answered.response_tokens, answered.response_mask),
                reward=rewards.tolist(),
            ),
            [{"rewards": [round(float(reward), 6) for reward in row]} for row in rewards],
        )

    def objective(scores: Scores) -> Objective:
        if not options.pair:
            losses, tokens = negative_log_likelihood(scores.policy_tokens[:, best], scores.mask[:, best])
            return Objective(losses, tokens, {"logps/chosen": scores.policy[:, best]})
        rewards = options.beta * scores.log_ratios
        losses = dpo(rewards[:, best], rewards[:, worst])
        return per_example(losses, preference_metrics(scores, rewards, best, worst))

    return Recipe(
        responses=(),
        view_names=("image",),
        make_views=original,
        candidates=tuple(Candidate(0, response) for response in range(count)),
        objective=objective,
        tile_by_tile=True,
        needs_reference=options.pair,
        rollout=Rollout(collect, rewards=True, roles=("chosen", "rejected")[:count]),
    )


def _rewards(policy: Policy, batch: Batch, together: int) -> np.ndarray:
    """What the reward model says of every answer [b n], asked for as many at a time as the recipe scores."""
    assert policy.reward is not None
    rows = np.arange(len(batch.weights))[:, None]
    parts = np.split(np.arange(batch.response_tokens.shape[1]), batch.response_tokens.shape[1] // together)
    return np.concatenate([policy.reward(_of_responses(batch, rows, part[None])) for part in parts], axis=1)


def _of_responses(batch: Batch, rows: np.ndarray, responses: np.ndarray) -> Batch:
    """The batch with these of its responses, in this order."""
    columns = ("response_tokens", "response_mask", "scored")
    return batch._replace(**{name: getattr(batch, name)[rows, responses] for name in columns})


def _keys(key: jax.Array, record_ids: Any, count: int) -> jax.Array:
    """A key for each answer [b n], so that a record's answers do not depend on what else is in the batch."""
    return jax.vmap(lambda record: jax.random.split(jax.random.fold_in(key, record), count))(record_ids)
