"""A method's responses for every record, made once by the model that training would start from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from vla_jax.data import Batch, DataError, Record
from vla_jax.data.batches import collate
from vla_jax.data.loading import Reader
from vla_jax.parallel import place_batch, replicated
from vla_jax.rewards import Judge
from vla_jax.training.judging import judge_of
from vla_jax.training.run import Run
from vla_jax.training.step import Trained, TrainState


class Answered(NamedTuple):
    """What was made for a record.

    Attributes:
      responses: role -> text; none where the record is bad, a response is empty, or the method would not
        learn from it.
      provenance: what the method says of how it was made.
    """

    responses: Mapping[str, str]
    provenance: Mapping[str, Any]


def one_pass(run: Run, indices: Sequence[int], folder: Path) -> Iterator[dict[int, Answered]]:
    """What the run's method makes for each record, a batch at a time; nothing is trained.

    Args:
      run: its method rolls out, or has responses made by teacher forcing.
      indices: of the records.
      folder: exists; what the method finds out before its first round, and a judge's verdicts, are kept here.

    Yields:
      index -> what was made, of every record of a batch.
    """
    rows, read = run.config.train.batch_size, Reader(run.source, run.encoder)
    with judge_of(run.config, folder) as judge, jax.set_mesh(run.mesh):
        make = _rollouts(run, folder, judge) if run.recipe.rollout else _teacher_forced(run)
        for start in range(0, len(indices), rows):
            chunk: list[int | None] = [*indices[start : start + rows]]
            chunk += [None] * (rows - len(chunk))
            encoded = [None if index is None else read.read(index, run.report, run.skips) for index in chunk]
            batch = place_batch(run.mesh, collate(encoded, run.encoder), np.arange(rows), rows)
            made = zip(chunk, make(chunk, batch), strict=True)
            yield {index: each for index, each in made if index is not None}


# (indices of a batch's records, the batch) -> what was made for each row.
_Make = Callable[[Sequence[int | None], Batch], list[Answered]]


def _teacher_forced(run: Run) -> _Make:
    """Makes the responses that the method has the starting model make by teacher forcing."""
    method, base = run.method(), run.placed_base()
    said = jax.jit(method.reference_scores, out_shardings=replicated(run.mesh))

    def make(indices: Sequence[int | None], batch: Batch) -> list[Answered]:
        del indices
        sources = [response for _, response in run.recipe.made]
        mask = np.asarray(batch.response_mask)[:, sources]
        return _answered(run, np.asarray(said(base, batch).made), mask, np.asarray(batch.weights))

    return make


def _rollouts(run: Run, folder: Path, judge: Judge | None) -> _Make:
    """Makes the responses of the method's rounds, each as if it were the first."""
    shown: list[Record | None] = []
    method, base = replace(run.method(), dropout=0.0), run.placed_base()
    collector = run.collector(method, lambda step: shown, folder, judge)
    assert collector is not None
    state = TrainState(jnp.int32(0), Trained(None, {}), optax.EmptyState())
    collector.prepare(state, base, lambda: run.open_batches(0))

    def make(indices: Sequence[int | None], batch: Batch) -> list[Answered]:
        shown[:] = [None if index is None else _record(run, index) for index in indices]
        collected = collector(state, base, batch)
        batch = jax.device_get(collected.batch)
        count = len(run.recipe.made_here)
        tokens, mask = batch.response_tokens[:, -count:], batch.response_mask[:, -count:]
        return _answered(run, tokens, mask, batch.weights, collected.provenance)

    return make


def _record(run: Run, index: int) -> Record | None:
    try:
        return run.source[index]
    except DataError:
        # It was counted where it was encoded.
        return None


def _answered(
    run: Run,
    tokens: Int[np.ndarray, "b r t"],
    mask: Bool[np.ndarray, "b r t"],
    weights: Float[np.ndarray, " b"],
    provenance: Sequence[Mapping[str, Any]] = (),
) -> list[Answered]:
    answered = []
    for row, (ids, kept) in enumerate(zip(tokens, mask, strict=True)):
        texts = [
            run.model.tokenizer.decode(one[where], skip_special_tokens=True).strip()
            for one, where in zip(ids, kept, strict=True)
        ]
        usable = weights[row] > 0 and all(texts)
        responses = dict(zip(run.recipe.made_here, texts, strict=True)) if usable else {}
        answered.append(Answered(responses, provenance[row] if provenance else {}))
    return answered
