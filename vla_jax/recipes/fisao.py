"""FiSAO: single words are rewarded by what the model's own vision tower makes of them (paper, 3.3 and 3.4).

Each round the policy answers every prompt once. A verifier (CLIP on the model's own tower) scores the words
that name objects; those far above what correct words score before training are praised, those far below what
hallucinated ones score are blamed (Eq. 12), and clipped policy gradients follow these token rewards for
several epochs (Eq. 13). There is no value head, and nothing is discounted: a token answers for itself alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vla_jax.data import Batch, Record
from vla_jax.data.batches import Experience
from vla_jax.objectives import (
    Baselines,
    TokenRewards,
    clipped_policy_loss,
    clipped_tokens,
    verified_token_rewards,
)
from vla_jax.recipes.answers import (
    answer_metrics,
    host,
    reward_metrics,
    sampled_answers,
    shown,
    with_reference,
)
from vla_jax.recipes.recipe import Objective, Recipe, original, per_example
from vla_jax.recipes.rollouts import Collected, Policy, Rollout
from vla_jax.rewards.baselines import correctness, labelled_baselines, unlabelled_baselines
from vla_jax.rewards.verifier import Verified
from vla_jax.scoring import Candidate, Scores


@dataclass(frozen=True)
class Options:
    """Settings of FiSAO.

    Attributes:
      margin: lambda, how far beyond the means of correct and hallucinated words a score must lie.
      divergence_weight: xi, of KL(reference || policy) in the reward of a token.
      paper_denominator: blame is divided as Eq. 12 prints it, see `verified_token_rewards`.
      clip: how far the ratio may move.
      paper_clip: the ratio is clipped as Eq. 13 prints it, see `clipped_policy_loss`.
      ratio_to_reference: the ratio is against the reference, as Eq. 14 prints it, not against the policy that
        answered.
      every_token: every token of a word is rewarded, not its last alone.
      fresh_divergences: the divergence is that of the policy at each update, not at the round's beginning.
      epochs, minibatches: passes over a round's responses, and updates a pass.
      temperature: of the answers.
      baselines: "labels" tells correct from hallucinated words by the objects of training records, as the
        paper does; "scores" by their scores alone. Only before the first round: rewards read no label.
      baseline_rounds: batches of training prompts that are answered for it.
    """

    margin: float = 10.0
    divergence_weight: float = 0.2
    paper_denominator: bool = False
    clip: float = 0.2
    paper_clip: bool = False
    ratio_to_reference: bool = False
    every_token: bool = False
    fresh_divergences: bool = False
    epochs: int = 4
    minibatches: int = 1
    temperature: float = 1.0
    baselines: str = "labels"
    baseline_rounds: int = 8

    def __post_init__(self) -> None:
        if self.baselines not in ("labels", "scores"):
            raise ValueError(f"options.fisao.baselines is {self.baselines!r}; choose labels or scores")


def recipe(options: Options) -> Recipe:
    """One candidate, the answer that was sampled under the image."""

    def objective(scores: Scores) -> Objective:
        assert scores.experience is not None
        log_probs, mask = scores.policy_tokens[:, 0], scores.mask[:, 0]
        old, worth = (jnp.asarray(part)[:, 0] for part in scores.experience[:2])
        rewarded = mask & (worth != 0)
        if options.fresh_divergences:
            assert scores.divergences is not None
            worth = worth - options.divergence_weight * jnp.where(rewarded, scores.divergences[:, 0], 0)
        clip: dict[str, Any] = {
            "clip_low": options.clip,
            "clip_high": options.clip,
            "paper_clip": options.paper_clip,
        }
        losses, _ = clipped_policy_loss(log_probs, old, worth, rewarded, **clip)
        fallen, risen = clipped_tokens(log_probs, old, worth, rewarded, **clip)
        count = jnp.maximum(jnp.sum(rewarded, axis=-1), 1)
        metrics = {
            "clip_ratio": (fallen + risen) / count,
            "clip_ratio/low_mean": fallen / count,
            "clip_ratio/high_mean": risen / count,
            "logps/response": scores.policy[:, 0],
        }
        return per_example(losses, metrics)

    def collect(policy: Policy, batch: Batch) -> Collected:
        assert policy.verify is not None
        batch = sampled_answers(policy, batch, 1, options.temperature)
        said = policy.verify(batch, options.every_token)
        scores, apart = host((policy.scores(batch), policy.divergences(batch)))
        found = host(
            verified_token_rewards(
                jnp.asarray(said.scores),
                jnp.asarray(said.entities),
                jnp.zeros_like(apart) if options.fresh_divergences else jnp.asarray(apart),
                Baselines(*(policy.prepared[name] for name in Baselines._fields)),
                options.margin,
                options.divergence_weight,
                options.paper_denominator,
            )
        )
        earned = found.rewards.sum(axis=-1)
        metrics = {
            **reward_metrics(earned, batch.weights),
            **_word_metrics(said, found, apart, batch),
            **answer_metrics(batch, policy.end_ids),
        }
        samples = shown(
            policy.records(),
            policy.texts(batch.response_tokens, batch.response_mask),
            reward=earned,
            words=_worth_of_words(said, found),
        )
        old = scores.reference_tokens if options.ratio_to_reference else scores.policy_tokens
        if options.ratio_to_reference:
            batch = with_reference(batch, scores)
        return Collected(batch._replace(experience=Experience(old, found.rewards)), metrics, samples)

    def prepare(policy: Policy, batches: Iterable[Batch]) -> Mapping[str, float]:
        assert policy.verify is not None
        words: list[tuple[str, float, Record]] = []
        for later, batch in enumerate(islice(batches, options.baseline_rounds)):
            round_policy = replace(policy, key=jax.random.fold_in(policy.key, later))
            answered = sampled_answers(round_policy, batch, 1, options.temperature)
            rows = zip(policy.verify(answered, False).words, policy.records(later), strict=True)
            words += [
                (entity.word, score, record)
                for (response,), record in rows
                if record is not None
                for entity, score in response
            ]
        scores = [score for _, score, _ in words]
        if options.baselines == "scores":
            return {**unlabelled_baselines(scores)._asdict(), "words": len(words)}
        correct = correctness([(word, record) for word, _, record in words])
        return {
            **labelled_baselines(scores, correct)._asdict(),
            "words": len(words),
            "hallucinated_words": correct.count(False),
        }

    return Recipe(
        responses=(),
        view_names=("image",),
        make_views=original,
        candidates=(Candidate(view=0, response=0),),
        objective=objective,
        needs_reference=options.ratio_to_reference,
        divergences=options.fresh_divergences,
        rollout=Rollout(collect, prepare, options.epochs, options.minibatches, verifier=True),
        tile_by_tile=True,
    )


def _word_metrics(
    said: Verified, found: TokenRewards, apart: Float[np.ndarray, "b 1 t"], batch: Batch
) -> dict[str, float]:
    """Of the rows that count: the shares of tokens and of object words that are rewarded, and the divergence.

    `words/score` is the mean of what the verifier says of object words.
    """
    rows = np.flatnonzero(batch.weights > 0)
    if not len(rows):
        return {}
    praised, blamed, mask = found.praised[rows], found.blamed[rows], batch.response_mask[rows]
    words = [score for row in rows for _, score in said.words[row][0]]
    named = max(int(said.entities[rows].sum()), 1)
    return {
        "kl": float(apart[rows][mask].mean()),
        "rewards/share_of_tokens": float((praised | blamed).sum() / mask.sum()),
        "rewards/praised": float(praised.sum() / named),
        "rewards/blamed": float(blamed.sum() / named),
        "words/score": float(np.mean(words)) if words else 0.0,
        "words/per_response": len(words) / len(rows),
    }


def _worth_of_words(said: Verified, found: TokenRewards) -> list[list[str]]:
    """The object words of each answer, each with its score and what it earns."""
    return [
        [
            ", ".join(f"{word} {score:.1f} ({rewards[last]:+.2f})" for (word, _, last), score in words)
            for words, rewards in zip(*row, strict=True)
        ]
        for row in zip(said.words, found.rewards, strict=True)
    ]
