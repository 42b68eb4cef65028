"""Responses that are begun, completed by a model: beginnings are forks of sequences that are read once.

`plain` reads every beginning alone; tests compare `Completions` with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from vla_jax.data import Batch
from vla_jax.models.compute import Compute
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.rollout.choosing import Sampling
from vla_jax.rollout.decoding import Sampled, decode
from vla_jax.rollout.prefilling import prefill


@dataclass(frozen=True)
class Speaker:
    """A model at hand.

    Attributes:
      config, params, adapter: the model.
      tokenizer: its tokenizer.
      end_ids: the tokens that end a response.
      see: batch -> image tokens of its images.
      compute: how the language model is computed.
    """

    config: LlavaConfig
    params: Params
    adapter: Adapter | None
    tokenizer: Any
    end_ids: tuple[int, ...]
    see: Callable[[Batch], Float[Array, "b n d"]]
    compute: Compute = Compute()


class Beginning(NamedTuple):
    """How a response begins that is to be completed.

    Attributes:
      row: of the batch.
      number: sets it apart from the row's others.
      tokens: its ids so far.
      whole: complete the response; else only its sentence.
    """

    row: int
    number: int
    tokens: tuple[int, ...]
    whole: bool


class Sight(NamedTuple):
    """What is seen of a batch's images.

    Attributes:
      features: image tokens.
      keep: False hides a place of the prompt; None hides none.
    """

    features: Float[Array, "b n d"]
    keep: Bool[Array, "b s"] | None


class _Sequence(NamedTuple):
    """What is to be read: a row's prompt, what stands behind it, and the beginnings that fork from it."""

    row: int
    tokens: tuple[int, ...]
    forks: tuple[Beginning, ...]


@dataclass(frozen=True)
class Completions:
    """A model that completes responses to a batch's prompts, with one program for all calls of a shape.

    What is drawn follows from (key, record, try, number), whatever else is asked for.

    Attributes:
      speaker: the model.
      prefix_tokens, prefix_mask: prompts with expanded image placeholders, left-padded.
      record_ids: what numbers each row.
      responses: ids that a row's beginnings mostly begin like; those that do share one sequence.
      length: t, that sequences are padded to behind their prompts; a longer one takes a program of its own.
      sight: the number of a try -> what is seen of the images then.
      sentence, whole: how a sentence is completed, and how a response.
      key: of the draws.
    """

    speaker: Speaker
    prefix_tokens: Int[np.ndarray, "b s"]
    prefix_mask: Bool[np.ndarray, "b s"]
    record_ids: UInt32[np.ndarray, " b"]
    responses: Sequence[Sequence[int]]
    length: int
    sight: Callable[[int], Sight]
    sentence: Sampling
    whole: Sampling
    key: PRNGKeyArray

    def __call__(self, attempt: int, beginnings: Sequence[Beginning]) -> list[tuple[int, ...]]:
        """The tokens that complete each beginning, without what ends a response."""
        sight = self.sight(attempt)
        completed: dict[Beginning, tuple[int, ...]] = {}
        for whole in (False, True):
            sequences = self._sequences([each for each in beginnings if each.whole == whole])
            while sequences:
                rows = self._rows(len(sequences))
                chunk, sequences = sequences[:rows], sequences[rows:]
                completed |= self._complete(
                    chunk, rows, sight, attempt, self.whole if whole else self.sentence
                )
        return [completed[beginning] for beginning in beginnings]

    def plain(self, attempt: int, beginnings: Sequence[Beginning]) -> list[tuple[int, ...]]:
        """The same, every beginning read alone."""
        sight = self.sight(attempt)
        completed: dict[Beginning, tuple[int, ...]] = {}
        for each in beginnings:
            alone = [_Sequence(each.row, each.tokens, (each,))]
            completed |= self._complete(alone, 1, sight, attempt, self.whole if each.whole else self.sentence)
        return [completed[beginning] for beginning in beginnings]

    def _rows(self, sequences: int) -> int:
        """Of how many sequences a program is: those of a batch, or a quarter where they fill no more."""
        rows = len(self.prefix_tokens)
        return rows // 4 if rows % 4 == 0 and sequences <= rows // 4 else rows

    def _sequences(self, beginnings: Sequence[Beginning]) -> list[_Sequence]:
        """One sequence for a row's beginnings that are its response's, one for each other."""
        shared: dict[int, list[Beginning]] = {}
        alone = []
        for each in beginnings:
            if each.tokens == tuple(self.responses[each.row][: len(each.tokens)]):
                shared.setdefault(each.row, []).append(each)
            else:
                alone.append(_Sequence(each.row, each.tokens, (each,)))
        longest = {row: max(forks, key=lambda fork: len(fork.tokens)).tokens for row, forks in shared.items()}
        return [_Sequence(row, longest[row], tuple(forks)) for row, forks in shared.items()] + alone

    def _complete(
        self, sequences: Sequence[_Sequence], count: int, sight: Sight, attempt: int, sampling: Sampling
    ) -> dict[Beginning, tuple[int, ...]]:
        """Completes the forks of at most `count` sequences, filled up to it and to a power of two of forks.

        What fills up repeats what is there, so that it ends as soon.
        """
        sequences = [*sequences, *[sequences[0]] * (count - len(sequences))]
        most = 1 << (max(len(sequence.forks) for sequence in sequences) - 1).bit_length()
        forks = [(*each.forks, *[each.forks[0]] * (most - len(each.forks))) for each in sequences]
        rows = np.array([sequence.row for sequence in sequences])
        prompt, length = self.prefix_tokens.shape[1], max(self.length, *(len(s.tokens) for s in sequences))
        tokens = np.zeros((count, prompt + length), np.int32)
        mask = np.zeros(tokens.shape, bool)
        tokens[:, :prompt], mask[:, :prompt] = self.prefix_tokens[rows], self.prefix_mask[rows]
        for i, sequence in enumerate(sequences):
            end = prompt + len(sequence.tokens)
            tokens[i, prompt:end], mask[i, prompt:end] = sequence.tokens, True
        model, compute = (
            (self.speaker.params, self.speaker.adapter, self.speaker.config),
            self.speaker.compute,
        )
        starts = np.array([[prompt + len(fork.tokens) for fork in each] for each in forks], np.int32)
        prefilled = prefill(
            *model,
            sight.features[rows],
            tokens,
            mask,
            None if sight.keep is None else self._keep(sight.keep[rows], length),
            starts,
            compute,
        )
        numbers = np.array([[fork.number for fork in each] for each in forks])
        keys = _keys(self.key, self.record_ids[rows, None], attempt, numbers)
        sampled = jax.device_get(decode(*model, prefilled, sampling, keys, compute=compute))
        return {fork: self._ids(sampled, i, f) for i, each in enumerate(forks) for f, fork in enumerate(each)}

    def _keep(self, keep: Bool[Array, "b s"], further: int) -> Bool[np.ndarray, "b s"]:
        return np.pad(np.asarray(keep), ((0, 0), (0, further)), constant_values=True)

    def _ids(self, sampled: Sampled, row: int, fork: int) -> tuple[int, ...]:
        ids = np.asarray(sampled.tokens[row, fork])[np.asarray(sampled.mask[row, fork])].tolist()
        ends = bool(ids) and ids[-1] in self.speaker.end_ids
        return tuple(ids[:-1] if ends else ids)


@jax.jit
def _keys(
    key: PRNGKeyArray, record_ids: UInt32[Array, "b 1"], attempt: Int[Array, ""], numbers: Int[Array, "b f"]
) -> PRNGKeyArray:
    """A key for every fork [b f]."""

    def one(record_id: Array, number: Array) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, record_id), attempt), number)

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(record_ids[:, 0], numbers)
