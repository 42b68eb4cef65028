"""Batches along a plan: records read, decoded and tokenised in grain's threads or processes, prefetched.

What a worker makes of a step depends on the step alone, and the loader's whole state is the step: so batches
are the same whatever the number of workers, and from wherever one starts. What happened to records travels
with the batch and is noted when the batch is handed out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np
from absl import flags
from jaxtyping import Int, UInt32

from vla_jax.data.batches import Batch, Kept, collate
from vla_jax.data.encoding import Encoded, Encoder, stamp
from vla_jax.data.plan import BatchPlan
from vla_jax.data.record_report import RecordReport, Seen
from vla_jax.data.rows import record_errors
from vla_jax.data.schema import DataError, Source

# (indices, stamps, response length) -> what the reference said of these records.
ReadReference = Callable[[Int[np.ndarray, " b"], UInt32[np.ndarray, " b"], int], Kept]


class Prepared(NamedTuple):
    """What a worker hands over.

    Attributes:
      batch: bad records' rows at weight 0.
      indices: of its records.
      stamps: what each record looked like to the model, 0 where it was bad.
      seen: of the records that were encoded.
      bad: of the others.
    """

    batch: Batch
    indices: Int[np.ndarray, " b"]
    stamps: UInt32[np.ndarray, " b"]
    seen: tuple[Seen, ...]
    bad: tuple[DataError, ...]


@dataclass(frozen=True)
class Reader:
    """Index -> encoded record. Travels to the workers.

    Attributes:
      source: random access to records.
      encoder: turns each into ids.
    """

    source: Source
    encoder: Encoder

    def __call__(self, index: int) -> Encoded:
        """The record at `index`.

        Raises:
          DataError: where it cannot be used.
        """
        record = self.source[index]
        with record_errors(self._name, record.key):
            return self.encoder.encode(record, self._name)

    def lengths(self, index: int) -> tuple[int, int]:
        """Tokens of a record's prompt and of its longest response; see `Encoder.lengths`.

        Raises:
          DataError: where it cannot be used.
        """
        record = self.source[index]
        with record_errors(self._name, record.key):
            return self.encoder.lengths(record, self._name)

    @property
    def _name(self) -> str:
        return getattr(self.source, "name", "data")

    def read(self, index: int, report: RecordReport, skip: bool) -> Encoded | None:
        """The record at `index`, noted in a report; None where it is bad and bad ones are skipped.

        Raises:
          DataError: at a bad record, unless they are skipped, and at one too many.
        """
        try:
            encoded = self(index)
        except DataError as error:
            if not skip:
                raise
            report.skipped(error)
            return None
        report.saw(Seen.of(encoded))
        return encoded


@dataclass(frozen=True)
class _Worker:
    """Step -> its batch, or one process's rows of it."""

    read: Reader
    plan: BatchPlan
    part: Int[np.ndarray, " p"] | None

    def __call__(self, step: int) -> Prepared:
        indices = self.plan.indices(step)
        if self.part is not None:
            indices = indices[self.part]
        rows: list[Encoded | None] = []
        bad = []
        for index in indices:
            try:
                rows.append(self.read(int(index)))
            except DataError as error:
                rows.append(None)
                bad.append(error)
        stamps = np.array([0 if row is None else stamp(row) for row in rows], np.uint32)
        seen = tuple(Seen.of(row) for row in rows if row is not None)
        batch = collate(rows, self.read.encoder, self.plan.longest(step))
        return Prepared(batch, indices, stamps, seen, tuple(bad))


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
    workers: int = 0,
    reference: ReadReference | None = None,
    part: Int[np.ndarray, " p"] | None = None,
) -> Iterator[Batch]:
    """Batches `start` to `stop` - 1 of the plan; the same whatever `threads` and `workers` are.

    Args:
      source: random access to records; with workers, one that can be pickled.
      encoder: turns each into ids.
      plan: fixes every batch.
      start: first step, the iterator's whole state.
      stop: the step before which it ends.
      skip_bad_records: give a bad record's row weight 0 and report it, instead of raising.
      report: filled along the way.
      threads: how many batches are prepared at a time, in each worker.
      workers: processes that prepare them; 0 prepares them in this one.
      reference: what the reference said of records.
      part: which rows of every batch are read here, where several hosts read it together; None reads all.

    Raises:
      DataError: at a bad record, unless they are skipped, and at one too many.
    """
    if start >= stop:
        return
    report = report if report is not None else RecordReport()
    steps = grain.MapDataset.range(start, stop).map(_Worker(Reader(source, encoder), plan, part))
    loader = steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers:
        _let_grain_read_its_flags()
        loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    for batch, indices, stamps, seen, bad in loader:
        for each in seen:
            report.saw(each)
        for error in bad:
            if not skip_bad_records:
                raise error
            report.skipped(error)
        if reference is not None:
            batch = batch._replace(reference=reference(indices, stamps, batch.response_tokens.shape[2]))
        yield batch


def _let_grain_read_its_flags() -> None:
    """Lets flags of grain's be read where nobody parses flags: in scripts, notebooks and tests.

    Its processes read some of its absl flags without asking whether any were parsed.
    """
    if not flags.FLAGS.is_parsed():
        for name in flags.FLAGS:
            if name.startswith("grain_"):
                flags.FLAGS[name].present = True
