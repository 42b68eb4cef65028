"""RLOO: REINFORCE with the other answers as the baseline (Ahmadian et al. 2024, arXiv:2402.14740).

Several answers to a prompt are sampled. Each earns what the reward model says of it, on a scale on which the
answers of the model that training starts from have mean 0 and variance 1, less beta times its divergence from
that model; its advantage is that less the mean of the others. A whole answer is one action: one ratio, one
clip. So the alignment study (5.5, Appendix A) and TRL have it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np

from vla_jax.data import Batch
from vla_jax.data.batches import Experience
from vla_jax.objectives import (
    clipped_policy_loss,
    clipped_tokens,
    kl_estimate,
    leave_one_out,
    standardised,
)
from vla_jax.recipes.answers import (
    answer_metrics,
    divergence_metrics,
    ended,
    host,
    reward_metrics,
    sampled_answers,
    shown,
    with_reference,
)
from vla_jax.recipes.recipe import Objective, Recipe, original
from vla_jax.recipes.rollouts import Collected, Policy, Rollout
from vla_jax.scoring import Candidate, Scores


@dataclass(frozen=True)
class Options:
    """Settings of RLOO.

    Attributes:
      samples: answers to a prompt, at least 2 (TRL: `num_generations`).
      temperature: of the sampling. Ratios are of log-probabilities at temperature 1.
      beta: price of the divergence from the reference, in the reward, for each nat of an answer.
      measured_batches: batches of prompts, from the first on, whose answers the scale of the rewards is
        measured on; 0 takes rewards as they are.
      missing_eos_penalty: taken from the reward of an answer that was cut.
      clip_low, clip_high: how far an answer's ratio may fall or rise before it stops counting.
      epochs: passes over the answers of a step (TRL: `num_iterations`). The study's two epochs are passes
        over its data.
      minibatches: updates a pass.
    """

    samples: int = 4
    temperature: float = 1.0
    beta: float = 0.4
    measured_batches: int = 8
    missing_eos_penalty: float = 0.0
    clip_low: float = 0.2
    clip_high: float = 0.2
    epochs: int = 1
    minibatches: int = 1


def recipe(options: Options) -> Recipe:
    """As many candidates as answers, all under the image; of the data only prompts are read."""

    def earned(policy: Policy, batch: Batch) -> np.ndarray:
        assert policy.reward is not None
        cut = ~ended(batch.response_tokens, batch.response_mask, policy.end_ids)
        return policy.reward(batch) - options.missing_eos_penalty * cut

    def prepare(policy: Policy, batches: Iterable[Batch]) -> Mapping[str, float]:
        rewards = []
        for index, batch in enumerate(islice(batches, options.measured_batches)):
            drawing = replace(policy, key=jax.random.fold_in(policy.key, index))
            answered = sampled_answers(drawing, batch, options.samples, options.temperature)
            rewards.append(earned(policy, answered)[answered.weights > 0].ravel())
        measured = np.concatenate(rewards) if rewards else np.array([-1.0, 1.0])
        return {"reward_mean": float(measured.mean()), "reward_std": max(float(measured.std()), 1e-6)}

    def collect(policy: Policy, batch: Batch) -> Collected:
        batch = sampled_answers(policy, batch, options.samples, options.temperature)
        scores = host(policy.scores(batch))
        rewards = earned(policy, batch)
        scaled = standardised(
            jnp.asarray(rewards), policy.prepared["reward_mean"], policy.prepared["reward_std"]
        )
        kl = np.where(scores.mask, kl_estimate(scores.policy_tokens, scores.reference_tokens), 0).sum(-1)
        advantages = np.asarray(leave_one_out(jnp.asarray(scaled - options.beta * kl)))
        experience = Experience(scores.policy_tokens, np.where(batch.response_mask, advantages[..., None], 0))
        return Collected(
            with_reference(batch, scores)._replace(experience=experience),
            {
                **reward_metrics(rewards, batch.weights),
                **divergence_metrics(scores, batch.weights),
                **answer_metrics(batch, policy.end_ids),
            },
            shown(
                policy.records(),
                policy.texts(batch.response_tokens, batch.response_mask),
                reward=rewards,
                advantage=advantages,
            ),
        )

    def objective(scores: Scores) -> Objective:
        assert scores.experience is not None
        policy, rollout = (
            jnp.sum(jnp.where(scores.mask, log_probs, 0), axis=-1, keepdims=True)
            for log_probs in (scores.policy_tokens, scores.experience.log_probs)
        )
        # An answer has the same advantage at all its tokens.
        advantages = scores.experience.advantages[..., :1]
        action = policy, rollout, advantages, jnp.any(scores.mask, axis=-1, keepdims=True)
        losses, answers = clipped_policy_loss(*action, options.clip_low, options.clip_high)
        low, high = clipped_tokens(*action, options.clip_low, options.clip_high)
        metrics = {
            "clip_ratio": jnp.mean(low + high, axis=1),
            "clip_ratio/low_mean": jnp.mean(low, axis=1),
            "clip_ratio/high_mean": jnp.mean(high, axis=1),
        }
        return Objective(jnp.sum(losses, axis=1), jnp.sum(answers, axis=1), metrics)

    return Recipe(
        responses=(),
        view_names=("image",),
        make_views=original,
        candidates=tuple(Candidate(0, response) for response in range(options.samples)),
        objective=objective,
        tile_by_tile=True,
        rollout=Rollout(collect, prepare, options.epochs, options.minibatches, rewards=True),
    )
