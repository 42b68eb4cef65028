"""BDHS: rejected answers that the model makes of the chosen one when it hardly sees the image (the alignment
study, 3.4 and algorithm 1, arXiv:2407.02477).

`construct bdhs` makes them beforehand; `online` makes them in every step, with the policy as it is then. The
loss is DPO's on (chosen, corrupted) or, where the data has a rejected answer too, the average of both pairs'
(equation 5). The image is hidden by masking most of its tokens (BDHS_attn) or drowned in noise (BDHS_noise).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from vla_jax.data import Batch
from vla_jax.objectives import dpo, gamma_average
from vla_jax.recipes.blinding import Sights
from vla_jax.recipes.corruption import Corrupted, Corruption
from vla_jax.recipes.measures import preference_metrics
from vla_jax.recipes.recipe import Objective, Recipe, original, per_example
from vla_jax.recipes.rollouts import Collected, Policy, Rollout
from vla_jax.rollout import Beginning, Completions, Sampling
from vla_jax.rollout.sentences import end_tokens
from vla_jax.scoring import Candidate, Scores

_CORRUPTED = "corrupted"
# How they are made beforehand; the data needs no rejected ones for it.
CONSTRUCTING = {"online": True, "data_pair": False}
# Sets the key of tokens apart from those of masks and noise.
_TOKENS = 3
# Rows of a step whose answers are written down.
_SHOWN = 2


@dataclass(frozen=True)
class Options:
    """Settings of BDHS; from `threshold` on, how corrupted answers are made.

    Attributes:
      beta: scale of the rewards.
      label_smoothing: assumed share of wrong labels of the data's pair.
      data_pair: read the data's rejected answer too.
      gamma: weight of the data's pair; the pair with the corrupted answer has the rest.
      online: make corrupted answers in every step; else the data has them, in the role `corrupted`.
      threshold: ρ_th, the share of image tokens that is hidden; 0 hides none.
      noise_step: steps of the diffusion that the image goes through, of 1,000; 0 leaves it as it is.
      tries: N_BDHS, the most; of several, the last is made without the chosen answer and kept as it is.
      similar: ε_s, the similarity to the chosen answer from which on another is made.
      temperature: of sampling; 0 takes the likeliest tokens.
      sentence_tokens: where the completion of a sentence is cut.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    data_pair: bool = True
    gamma: float = 0.5
    online: bool = False
    threshold: float = 0.99
    noise_step: int = 0
    tries: int = 5
    similar: float = 0.97
    temperature: float = 1.0
    sentence_tokens: int = 64


def recipe(options: Options) -> Recipe:
    """Two or three candidates under the image: chosen, rejected where it is read, and corrupted."""
    given = ("chosen", "rejected") if options.data_pair else ("chosen",)
    chosen, rejected, corrupted = 0, 1, len(given)

    def objective(scores: Scores) -> Objective:
        rewards = options.beta * scores.log_ratios
        made = dpo(rewards[:, chosen], rewards[:, corrupted])
        if not options.data_pair:
            return per_example(made, preference_metrics(scores, rewards, chosen, corrupted))
        text = dpo(rewards[:, chosen], rewards[:, rejected], options.label_smoothing)
        metrics = {
            **preference_metrics(scores, rewards, chosen, rejected),
            "rewards/corrupted": rewards[:, corrupted],
            "loss/text": text,
            "loss/corrupted": made,
        }
        return per_example(gamma_average(text, made, options.gamma), metrics)

    rollout = Rollout(partial(_collect, options), roles=(_CORRUPTED,), similarity=True)
    return Recipe(
        responses=given if options.online else (*given, _CORRUPTED),
        view_names=("image",),
        make_views=original,
        candidates=tuple(Candidate(view=0, response=response) for response in range(len(given) + 1)),
        objective=objective,
        tile_by_tile=True,
        rollout=rollout if options.online else None,
    )


def _collect(options: Options, policy: Policy, batch: Batch) -> Collected:
    """The batch with a corrupted response of each chosen one behind its others.

    Raises:
      ValueError: where there are several processes, which would have to complete the same forks.
    """
    if jax.process_count() > 1:
        raise ValueError("corrupted answers are made in one process; make them beforehand with `construct`")
    batch, speaker, similarity = jax.device_get(batch), policy.speaker, policy.similarity
    assert speaker is not None and similarity is not None
    rows = np.flatnonzero(batch.weights).tolist()
    chosen = _chosen(batch, speaker.end_ids)
    length, ends = batch.response_tokens.shape[2], (*speaker.end_ids, *end_tokens(speaker.tokenizer))
    sights = Sights(speaker, batch, policy.key, options.threshold, options.noise_step)
    completions = Completions(
        speaker,
        batch.prefix_tokens,
        batch.prefix_mask,
        batch.record_ids,
        chosen,
        length,
        sights,
        Sampling(options.sentence_tokens, ends, options.temperature),
        Sampling(length, speaker.end_ids, options.temperature),
        jax.random.fold_in(policy.key, _TOKENS),
    )

    def complete(attempt: int, asked: Sequence[Beginning]) -> Sequence[Sequence[int]]:
        return completions(attempt, [each._replace(row=rows[each.row]) for each in asked])

    corrupt = Corruption(speaker.tokenizer, similarity, options.tries, options.similar, longest=length)
    seed = np.asarray(jax.random.key_data(policy.key)).ravel().tolist()
    made = dict(
        zip(
            rows,
            corrupt([chosen[row] for row in rows], batch.record_ids[rows].tolist(), complete, seed),
            strict=True,
        )
    )
    provenance = [
        _provenance(options, made[row], row, sights, similarity.name) if row in made else {}
        for row in range(len(chosen))
    ]
    return Collected(
        _with_response(batch, {row: each.tokens for row, each in made.items()}, speaker.end_ids[0]),
        _metrics(list(made.values())),
        [
            {"question": record.question, "corrupted": made[row].text, "tries": made[row].tries}
            for row, record in enumerate(policy.records())
            if record is not None and row in made
        ][:_SHOWN],
        provenance,
    )


def _chosen(batch: Batch, end_ids: Sequence[int]) -> list[tuple[int, ...]]:
    """Ids of the chosen responses, without the end of sequence."""
    rows = zip(batch.response_tokens[:, 0], batch.response_mask[:, 0], strict=True)
    responses = [tokens[mask].tolist() for tokens, mask in rows]
    return [tuple(ids[:-1] if ids and ids[-1] in end_ids else ids) for ids in responses]


def _with_response(batch: Batch, made: Mapping[int, Sequence[int]], end: int) -> Batch:
    """The batch with one response more a row, ended, and cut where it is longer than the others may be."""
    rows, count, length = batch.response_tokens.shape
    tokens, mask = np.zeros((rows, count + 1, length), np.int32), np.zeros((rows, count + 1, length), bool)
    scored = mask.copy()
    tokens[:, :count], mask[:, :count] = batch.response_tokens, batch.response_mask
    scored[:, :count] = batch.scored
    for row, response in made.items():
        ids = [*response, end][:length]
        tokens[row, count, : len(ids)], mask[row, count, : len(ids)] = ids, True
        scored[row, count, : len(ids)] = True
    return batch._replace(response_tokens=tokens, response_mask=mask, scored=scored)


def _provenance(
    options: Options, made: Corrupted, row: int, sights: Sights, compared_by: str
) -> Mapping[str, Any]:
    """How a response was made; cuts are (first token, tokens kept, whether Yes and No were exchanged)."""
    tokens, visible = (int(counts[row]) for counts in sights.counts(made.tries))
    return {
        "threshold": options.threshold,
        "image_tokens": tokens,
        "visible_image_tokens": visible,
        "noise_step": options.noise_step,
        "temperature": options.temperature,
        "tries": made.tries,
        "guided": bool(made.cuts),
        "cuts": [[cut.start, len(cut.kept), cut.exchanged] for cut in made.cuts],
        "similarity": round(made.similarity, 6),
        "similarity_by": compared_by,
    }


def _metrics(made: Sequence[Corrupted]) -> dict[str, float]:
    """Means over the responses."""
    if not made:
        return {}
    return {
        "corrupted/tries": float(np.mean([each.tries for each in made])),
        "corrupted/unguided": float(np.mean([not each.cuts for each in made])),
        "corrupted/similarity": float(np.mean([each.similarity for each in made])),
    }
