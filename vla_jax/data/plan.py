"""Which records make which batch: a pure function of (seed, step), for any number of workers."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class BatchPlan:
    """An endless, shuffled sequence of batches over `num_records` records.

    The records are walked in one random order per epoch; a batch may straddle two epochs, so none is dropped
    and none is seen twice in an epoch. The only state of an iterator over the plan is the step.

    Attributes:
      num_records: size of the source.
      batch_size: records in a global batch.
      seed: of the orders.
    """

    num_records: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_records < 1:
            raise ValueError("the data set is empty: there is nothing to make a batch of")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be at least 1")

    def indices(self, step: int) -> Int[np.ndarray, " b"]:
        """Source indices of the records in batch `step`, counted from 0."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, offsets = np.divmod(places, self.num_records)
        return np.array(
            [_order(self.num_records, self.seed, int(e))[o] for e, o in zip(epochs, offsets, strict=True)]
        )

    def epoch(self, step: int) -> float:
        """How many epochs are done when `step` batches are."""
        return step * self.batch_size / self.num_records


@lru_cache(maxsize=4)
def _order(num_records: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    return np.random.default_rng([seed, epoch]).permutation(num_records)
