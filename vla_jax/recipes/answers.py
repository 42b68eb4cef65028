"""What recipes share that sample: answers put into a batch and scored, and what is logged of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from vla_jax.data import Batch, Record
from vla_jax.data.batches import Kept
from vla_jax.objectives import kl_estimate
from vla_jax.parallel import gather
from vla_jax.recipes.rollouts import Policy, with_responses
from vla_jax.rollout.collapse import repetition, sameness
from vla_jax.scoring import Scores

# Rows of a step whose answers are written down.
_SHOWN = 2


def sampled_answers(policy: Policy, batch: Batch, count: int, temperature: float) -> Batch:
    """The batch with so many answers of the policy to each prompt, as NumPy arrays of all rows."""
    return host(with_responses(batch, policy.sample(batch, count, temperature, policy.key)))


def host(tree: Any) -> Any:
    """Arrays of a round as NumPy, all rows of them, on every process."""
    return jax.tree.map(np.asarray, gather(tree))


def with_reference(batch: Batch, scores: Scores) -> Batch:
    """The batch with what the reference said of its answers, so that updates need not ask it again."""
    rows, _, length = batch.response_tokens.shape
    tokens = np.asarray(scores.reference_tokens)
    return batch._replace(reference=Kept(tokens, np.zeros((rows, 0, length), np.int32)))


def ended(
    tokens: Int[np.ndarray, "b r t"], mask: Bool[np.ndarray, "b r t"], end_ids: Sequence[int]
) -> Bool[np.ndarray, "b r"]:
    """Which answers came to an end by themselves; the others were cut."""
    return np.any(mask & np.isin(tokens, end_ids), axis=-1)


def answer_metrics(batch: Batch, end_ids: Sequence[int]) -> dict[str, float]:
    """Lengths and signs of collapse, over all answers of rows that count.

    `completions/mean_length` in tokens, the end of sequence included; `completions/clipped_ratio`, the share
    that was cut; `completions/repetition` and `completions/sameness`, see `rollout.collapse`.
    """
    rows = batch.weights > 0
    if not rows.any():
        return {}
    tokens, mask = batch.response_tokens[rows], batch.response_mask[rows]
    flat = tokens.reshape(-1, tokens.shape[-1]), mask.reshape(-1, mask.shape[-1])
    return {
        "completions/mean_length": float(mask.sum(-1).mean()),
        "completions/clipped_ratio": float(1 - ended(tokens, mask, end_ids).mean()),
        "completions/repetition": float(repetition(*flat).mean()),
        "completions/sameness": sameness(*flat),
    }


def divergence_metrics(scores: Scores, weights: Float[np.ndarray, " b"]) -> dict[str, float]:
    """How far the policy is from the reference on its own answers, under TRL's names.

    `kl`, a mean over tokens, and `objective/kl`, a mean over answers of their sums; `entropy` and
    `objective/entropy`, the same of -log p of the sampled tokens, which estimates the policy's entropy.
    """
    rows = weights > 0
    if not rows.any():
        return {}
    columns = scores.policy_tokens, scores.reference_tokens, scores.mask
    log_probs, reference, mask = (np.asarray(column)[rows] for column in columns)
    sums = np.where(mask, kl_estimate(jnp.asarray(log_probs), jnp.asarray(reference)), 0).sum(-1)
    surprises = -np.where(mask, log_probs, 0).sum(-1)
    tokens = max(int(mask.sum()), 1)
    return {
        "kl": float(sums.sum() / tokens),
        "objective/kl": float(sums.mean()),
        "entropy": float(surprises.sum() / tokens),
        "objective/entropy": float(surprises.mean()),
    }


def reward_metrics(rewards: Float[np.ndarray, "b r"], weights: Float[np.ndarray, " b"]) -> dict[str, float]:
    """`reward` and `reward_std`, over all answers of rows that count.

    Of several answers a prompt also `frac_reward_zero_std`, the share of prompts whose answers earn the same.
    """
    known = rewards[weights > 0]
    if not known.size:
        return {}
    figures = {"reward": float(known.mean()), "reward_std": float(known.std())}
    if known.shape[1] > 1:
        figures["frac_reward_zero_std"] = float(np.isclose(known.std(axis=1), 0).mean())
    return figures


def shown(
    records: Sequence[Record | None], texts: Sequence[Sequence[str]], **columns: Any
) -> list[Mapping[str, Any]]:
    """The answers of the first rows, with what else is known of each.

    Args:
      records: whose answers they are.
      texts: the answers to each.
      columns: of the same shape as the answers: rewards, advantages, verdicts.
    """
    return [
        {
            "question": record.question,
            "response": text,
            **{name: _plain(values[row][index]) for name, values in columns.items()},
        }
        for row, (record, answers) in enumerate(zip(records, texts, strict=True))
        if record is not None and row < _SHOWN
        for index, text in enumerate(answers)
    ]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)
