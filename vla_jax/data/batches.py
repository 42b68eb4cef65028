"""Batches along a plan: random access, decoding and tokenising in grain's workers, prefetched."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt32

from vla_jax.data.encoding import Encoded, Encoder
from vla_jax.data.plan import BatchPlan
from vla_jax.data.schema import DataError, Source


class TooManyBadRecordsError(DataError):
    """The record with which more are bad than may be."""


class Kept(NamedTuple):
    """What the frozen reference said of a batch.

    Attributes:
      tokens: log-probabilities of every candidate's tokens.
      made: ids of the responses that it made.
    """

    tokens: Float[np.ndarray, "b c t"]
    made: Int[np.ndarray, "b m t"]


class Batch(NamedTuple):
    """What one training step reads, as NumPy arrays.

    Attributes:
      images: fitted images, black where a record has none; with a layout, the tiles of all its images, padded
        to the same number.
      boxes: key object of each, in pixels of the fitted image (of the first tile).
      prefix_tokens, prefix_mask: prompts with expanded image placeholders, left-padded.
      response_tokens, response_mask: responses, right-padded.
      scored: response tokens that count in the loss.
      record_ids: hash of each record's key; with the seed it fixes the record's random views.
      weights: 1, or 0 for a row that stands in for a bad record.
      masks: pixels of the key object; None where the encoder gives none.
      changed: response tokens that set the first two responses apart; None where the encoder marks none.
      layout: order of the image tokens in a row's tiles; None where each row has one image of one tile.
      reference: what the frozen reference said of the batch, where it was kept.
    """

    images: UInt8[np.ndarray, "b *k y x 3"]
    boxes: Float[np.ndarray, "b 4"]
    prefix_tokens: Int[np.ndarray, "b s"]
    prefix_mask: Bool[np.ndarray, "b s"]
    response_tokens: Int[np.ndarray, "b r t"]
    response_mask: Bool[np.ndarray, "b r t"]
    scored: Bool[np.ndarray, "b r t"]
    record_ids: UInt32[np.ndarray, " b"]
    weights: Float[np.ndarray, " b"]
    masks: Bool[np.ndarray, "b y x"] | None = None
    changed: Bool[np.ndarray, "b r t"] | None = None
    layout: Int[np.ndarray, "b n"] | None = None
    reference: Kept | None = None


@dataclass
class RecordReport:
    """What happened to records on their way into batches; filled by the loader's threads.

    Attributes:
      most_bad: how many records may be bad.
      bad: record -> why it was skipped, each counted once however often it came up.
      box_origins: how key objects were found, by record.
      truncated: records with a response that was cut.
    """

    most_bad: int | None = None
    bad: dict[str, DataError] = field(default_factory=dict)
    box_origins: dict[int, str] = field(default_factory=dict)
    truncated: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def saw(self, encoded: Encoded) -> None:
        """Notes a record that was encoded."""
        with self._lock:
            self.box_origins[encoded.record_id] = encoded.box_origin
            if encoded.truncated:
                self.truncated.add(encoded.record_id)

    def skipped(self, error: DataError) -> None:
        """Notes a record that was not.

        Raises:
          TooManyBadRecordsError: where it is one more than may be.
        """
        with self._lock:
            self.bad[f"{error.source}, {error.record}"] = error
            if self.most_bad is not None and len(self.bad) > self.most_bad:
                raise TooManyBadRecordsError(
                    error.source,
                    error.record,
                    f"{error.problem}; with it {len(self.bad)} records are bad, and {self.most_bad} may be",
                    f"{error.remedy}, or raise data.max_bad_fraction",
                )

    @property
    def origins(self) -> Counter[str]:
        """How many records found their key object in which way."""
        return Counter(self.box_origins.values())


def reader(
    source: Source, encoder: Encoder, skip_bad_records: bool = False, report: RecordReport | None = None
) -> Callable[[int], Encoded | None]:
    """Index -> encoded record, or None where it is bad and bad records are skipped; see `batches`."""
    report = report if report is not None else RecordReport()

    def read(index: int) -> Encoded | None:
        try:
            encoded = encoder.encode(source[index], getattr(source, "name", "data"))
        except DataError as error:
            if not skip_bad_records:
                raise
            report.skipped(error)
            return None
        report.saw(encoded)
        return encoded

    return read


def batches(
    source: Source,
    encoder: Encoder,
    plan: BatchPlan,
    *,
    start: int = 0,
    stop: int,
    skip_bad_records: bool = False,
    report: RecordReport | None = None,
    threads: int = 1,
    reference: Callable[[Int[np.ndarray, " b"], Sequence[Encoded | None], int], Kept] | None = None,
) -> Iterator[Batch]:
    """Batches `start` to `stop` - 1 of the plan; the same batches whatever `threads` is.

    Args:
      source: random access to records.
      encoder: turns each into ids.
      plan: fixes every batch.
      start: first step, the iterator's whole state.
      stop: the step before which it ends.
      skip_bad_records: give a bad record's row weight 0 and report it, instead of raising.
      report: filled along the way.
      threads: how many batches are prepared at a time.
      reference: (indices, records, response length) -> what the reference said of them.

    Raises:
      DataError: at a bad record, unless they are skipped, and at one too many.
    """
    read = reader(source, encoder, skip_bad_records, report)

    def make(step: int) -> Batch:
        indices = plan.indices(step)
        rows = [read(int(index)) for index in indices]
        batch = collate(rows, encoder)
        if reference is None:
            return batch
        return batch._replace(reference=reference(indices, rows, batch.response_tokens.shape[2]))

    if start >= stop:
        return iter(())
    dataset = grain.MapDataset.range(start, stop).map(make)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset.to_iter_dataset(options))


def collate(rows: Sequence[Encoded | None], encoder: Encoder) -> Batch:
    """Pads rows to the encoder's lengths; None becomes a row of weight 0 with one valid token."""
    size, roles, present = len(rows), len(encoder.responses), [row for row in rows if row is not None]
    longest_prompt = max((len(row.prefix) for row in present), default=1)
    longest_response = max((len(ids) for row in present for ids in row.responses), default=1)
    prompt = encoder.padded_length(longest_prompt, encoder.max_prompt_length)
    completion = encoder.padded_length(longest_response, encoder.max_completion_length)
    tiles, image_tokens = encoder.most_tiles_and_tokens()
    in_tiles = encoder.tiled

    prefix = np.zeros((size, prompt), np.int32)
    prefix_mask = np.zeros(prefix.shape, bool)
    # A row that attends to nothing would still be finite, but would make its neighbours' padding differ.
    prefix_mask[:, -1] = True
    responses = np.zeros((size, roles, completion), np.int32)
    response_mask, scored = np.zeros(responses.shape, bool), np.zeros(responses.shape, bool)
    images = np.zeros((size, *((tiles,) if in_tiles else ()), *encoder.processor.tile_size, 3), np.uint8)
    boxes, record_ids, weights = (
        np.zeros((size, 4), np.float32),
        np.zeros(size, np.uint32),
        np.zeros(size, np.float32),
    )
    masks = np.zeros((size, *encoder.processor.tile_size), bool) if encoder.masks else None
    changed = np.zeros(responses.shape, bool) if encoder.changes else None
    layout = np.zeros((size, image_tokens), np.int32) if in_tiles else None
    for i, row in enumerate(rows):
        if row is None:
            continue
        boxes[i], record_ids[i], weights[i] = row.box, row.record_id, 1
        prefix[i, -len(row.prefix) :], prefix_mask[i, -len(row.prefix) :] = row.prefix, True
        for j, (ids, counted) in enumerate(zip(row.responses, row.scored, strict=True)):
            responses[i, j, : len(ids)], response_mask[i, j, : len(ids)] = ids, True
            scored[i, j, : len(ids)] = counted
            if changed is not None and row.changed is not None:
                changed[i, j, : len(ids)] = row.changed[j]
        if masks is not None and row.mask is not None:
            masks[i] = row.mask
        if layout is None or row.layout is None:
            images[i] = row.image
        else:
            images[i, : len(row.image)], layout[i, : len(row.layout)] = row.image, row.layout
    return Batch(
        images,
        boxes,
        prefix,
        prefix_mask,
        responses,
        response_mask,
        scored,
        record_ids,
        weights,
        masks,
        changed,
        layout,
    )
