"""PPO: proximal policy optimisation with a value head (Schulman et al. 2017, arXiv:1707.06347).

One answer to a prompt is sampled. Every token pays for its divergence from the reference, the last one earns
what the reward model says of the answer; a value head, which begins as the reward model's, says before every
token what is still to come. Advantages are generalised and whitened. As the alignment study has it (5.5,
Appendix A); what that leaves open is as in TRL's PPO trainer.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from vla_jax.data import Batch
from vla_jax.data.batches import Experience
from vla_jax.objectives import (
    clipped_policy_loss,
    clipped_tokens,
    clipped_value_loss,
    generalized_advantages,
    kl_estimate,
    penalised_rewards,
    whiten,
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
    """Settings of PPO.

    Attributes:
      temperature: of the sampling. Ratios are of log-probabilities at temperature 1.
      beta: price of the divergence from the reference, in the rewards, for each nat (TRL: `kl_coef`).
      missing_eos_penalty: taken from the reward of an answer that was cut.
      gamma, lam: discount of later rewards, and of later surprises, in the advantages.
      whiten_advantages: give the advantages of a step mean 0 and variance 1.
      clip_low, clip_high: how far a token's ratio may fall or rise before it stops counting.
      value_clip: how far a value may move in a step, in units of reward.
      value_weight: of the value head's loss (TRL: `vf_coef`).
      epochs: passes over the answers of a step (TRL: `num_ppo_epochs`). The study's three epochs are passes
        over its data.
      minibatches: updates a pass.
    """

    temperature: float = 1.0
    beta: float = 0.05
    missing_eos_penalty: float = 0.0
    gamma: float = 1.0
    lam: float = 1.0
    whiten_advantages: bool = True
    clip_low: float = 0.2
    clip_high: float = 0.2
    value_clip: float = 0.2
    value_weight: float = 0.1
    epochs: int = 4
    minibatches: int = 1


def recipe(options: Options) -> Recipe:
    """One candidate, the answer sampled under the image; of the data only prompts are read."""

    def collect(policy: Policy, batch: Batch) -> Collected:
        assert policy.reward is not None
        batch = sampled_answers(policy, batch, 1, options.temperature)
        scores = host(policy.scores(batch))
        cut = ~ended(batch.response_tokens, batch.response_mask, policy.end_ids)
        rewards = policy.reward(batch) - options.missing_eos_penalty * cut
        kl = kl_estimate(scores.policy_tokens, scores.reference_tokens)
        earned = penalised_rewards(jnp.asarray(rewards), kl, scores.mask, options.beta)
        advantages, returns = generalized_advantages(
            earned, scores.values, scores.mask, options.gamma, options.lam
        )
        if options.whiten_advantages:
            advantages = whiten(advantages, scores.mask & (batch.weights > 0)[:, None, None])
        advantages, returns = host((advantages, returns))
        experience = Experience(scores.policy_tokens, advantages, returns, scores.values)
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
            ),
        )

    def objective(scores: Scores) -> Objective:
        then = scores.experience
        assert then is not None and then.values is not None and then.returns is not None
        assert scores.values is not None
        action = scores.policy_tokens, then.log_probs, then.advantages, scores.mask
        losses, tokens = clipped_policy_loss(*action, options.clip_low, options.clip_high)
        low, high = clipped_tokens(*action, options.clip_low, options.clip_high)
        errors, _ = clipped_value_loss(
            scores.values, then.values, then.returns, scores.mask, options.value_clip
        )
        count = jnp.sum(tokens, axis=1)

        def mean(sums: jnp.ndarray) -> jnp.ndarray:
            return jnp.sum(sums, axis=1) / jnp.maximum(count, 1)

        metrics = {
            "clip_ratio": mean(low + high),
            "clip_ratio/low_mean": mean(low),
            "clip_ratio/high_mean": mean(high),
            "loss/policy": mean(losses),
            "loss/value": mean(errors),
            "values": mean(jnp.sum(jnp.where(scores.mask, scores.values, 0), axis=-1)),
            "returns": mean(jnp.sum(jnp.where(scores.mask, then.returns, 0), axis=-1)),
        }
        return Objective(jnp.sum(losses + options.value_weight * errors, axis=1), count, metrics)

    return Recipe(
        responses=(),
        view_names=("image",),
        make_views=original,
        candidates=(Candidate(0, 0),),
        objective=objective,
        tile_by_tile=True,
        values=True,
        rollout=Rollout(collect, epochs=options.epochs, minibatches=options.minibatches, rewards=True),
    )
