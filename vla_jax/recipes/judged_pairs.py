"""Pairs sampled from the policy and put in order by a judge: what online preference methods share."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from vla_jax.data import Batch
from vla_jax.recipes.answers import ended, reward_metrics, sampled_answers
from vla_jax.recipes.rollouts import Policy
from vla_jax.rewards import Comparison, Judge, tally


class JudgedPairs(NamedTuple):
    """Two answers to every prompt, the better one first where there is one.

    Attributes:
      batch: the prompts with their answers in this order, as NumPy arrays.
      decided: rows in which one answer was preferred.
      replies: what the judge said of each row; "" where it was not asked.
      metrics: shares of ties and of unreadable replies among those that were asked, and what was spent.
    """

    batch: Batch
    decided: Bool[np.ndarray, " b"]
    replies: list[str]
    metrics: dict[str, float]


def judged_pairs(
    policy: Policy,
    batch: Batch,
    temperature: float,
    cut_loses: bool,
    asked: Bool[np.ndarray, " b"] | None = None,
) -> JudgedPairs:
    """Samples two answers to every prompt and has the judge compare them.

    Args:
      policy: who answers.
      batch: the prompts.
      temperature: of the sampling.
      cut_loses: an answer that was cut loses against one that ended, whatever the judge says.
      asked: rows to be judged; None judges all. Rows of weight 0 are never judged.

    Raises:
      JudgeError: where the judge cannot go on.
    """
    batch = sampled_answers(policy, batch, 2, temperature)
    tokens, mask = batch.response_tokens, batch.response_mask
    wanted = (batch.weights > 0) & (True if asked is None else asked)
    if policy.judge is None:
        better, replies, metrics = _by_reward(policy, batch, wanted)
    else:
        better, replies, metrics = _by_judge(policy.judge, policy, batch, wanted)
    if cut_loses:
        whole = ended(tokens, mask, policy.end_ids)
        better = np.where(wanted & (whole[:, 0] != whole[:, 1]), whole[:, 1].astype(int), better)
    order = np.stack([better == 1, better != 1], axis=1).astype(int)
    places = np.arange(len(tokens))[:, None], order
    columns = {name: getattr(batch, name)[places] for name in ("response_tokens", "response_mask", "scored")}
    return JudgedPairs(batch._replace(**columns), better >= 0, replies, metrics)


_Sides = Int[np.ndarray, " b"]  # 0 the first answer, 1 the second, -1 neither


def _by_judge(
    judge: Judge, policy: Policy, batch: Batch, wanted: Bool[np.ndarray, " b"]
) -> tuple[_Sides, list[str], dict[str, float]]:
    texts = policy.texts(batch.response_tokens, batch.response_mask)
    comparisons = {
        row: Comparison(record.image, record.question, *texts[row])
        for row, record in enumerate(policy.records())
        if wanted[row] and record is not None
    }
    verdicts = judge(list(comparisons.values()))
    replies, better = [""] * len(wanted), np.full(len(wanted), -1)
    for row, verdict in zip(comparisons, verdicts, strict=True):
        replies[row] = verdict.reply
        better[row] = -1 if verdict.preferred is None else verdict.preferred
    return better, replies, {**tally(verdicts), **judge.spent}


def _by_reward(
    policy: Policy, batch: Batch, wanted: Bool[np.ndarray, " b"]
) -> tuple[_Sides, list[str], dict[str, float]]:
    assert policy.reward is not None
    rewards = policy.reward(batch)
    tied = rewards[:, 0] == rewards[:, 1]
    decided = wanted & ~tied & np.isfinite(rewards).all(axis=1)
    better = np.where(decided, np.argmax(rewards, axis=1), -1)
    said = [f"{first:.4g} against {second:.4g}" for first, second in rewards]
    replies = [reply if asked else "" for reply, asked in zip(said, wanted, strict=True)]
    metrics = {
        "judge_ties": float(tied[wanted].mean()) if wanted.any() else 0.0,
        **reward_metrics(rewards, batch.weights),
    }
    return better, replies, metrics
