"""How long records are, measured before the first batch, so that batches can be made of like lengths."""

import sys

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from vla_jax.data.loading import Reader
from vla_jax.data.record_report import RecordReport
from vla_jax.data.schema import DataError


def measure(
    reader: Reader, indices: Int[np.ndarray, " m"], report: RecordReport, skip: bool
) -> Int[np.ndarray, "n 2"]:
    """Tokens of each record's prompt and of its longest response; no image is decoded.

    Args:
      reader: reads the n records.
      indices: which of them to measure, with a progress bar; the others, and bad ones, are 1 and 1 long.
      report: filled with the bad ones.
      skip: whether bad records are skipped.

    Raises:
      DataError: at a bad record, unless they are skipped, and at one too many.
    """
    lengths = np.ones((len(reader.source), 2), np.int64)
    every = 0.1 if sys.stderr.isatty() else 10
    with tqdm(indices, "lengths", unit="record", mininterval=every, leave=False, delay=1) as bar:
        for index in bar:
            try:
                lengths[index] = reader.lengths(int(index))
            except DataError as error:
                if not skip:
                    raise
                report.skipped(error)
    return lengths
