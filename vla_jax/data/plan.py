"""Which records make which batch: a pure function of (seed, step), for any number of workers and hosts."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

# Steps whose records are sorted by length together: enough to make batches of like lengths, few enough that
# the order stays random.
_SORTED_STEPS = 32
# Places in which every source of a mixture has exactly its share, to four digits.
_BLOCK = 10_000
# What a random generator is for, beside the seed.
_SHARES, _WINDOWS, _CHOICE = 1, 2, 3


@dataclass(frozen=True)
class Part:
    """One source of a mixture.

    Attributes:
      size: its records.
      weight: its share of the places in batches, relative to the other parts'.
    """

    size: int
    weight: float


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """An endless, shuffled sequence of batches over `num_records` records.

    The records are walked in one random order per epoch; a batch may straddle two epochs, so none is dropped
    and none is seen twice in an epoch. In a mixture each source has epochs of its own. The only state of an
    iterator over the plan is the step.

    Attributes:
      num_records: size of the source; of a mixture, of all its sources, one after the other.
      batch_size: records in a global batch.
      seed: of the orders.
      mixture: the sources; empty where there is one.
      lengths: tokens of each record's prompt and of its longest response; where given, batches are made of
        records of like lengths, and every host knows how long a batch is without reading all of it.
      passing: the records that batches are made of, ascending; None lets all pass, as of a mixture it must.
      limit: how many of these batches are made of, a random choice that a larger limit only adds to; 0 takes
        all, as of a mixture it must.

    Raises:
      ValueError: where there is nothing to make a batch of, fewer records than the limit, a filter or a
        limit of a mixture, or the parts do not make the whole.
    """

    num_records: int
    batch_size: int
    seed: int
    mixture: tuple[Part, ...] = ()
    lengths: Int[np.ndarray, "n 2"] | None = None
    passing: Int[np.ndarray, " m"] | None = None
    limit: int = 0

    def __post_init__(self) -> None:
        if self.num_records < 1:
            raise ValueError("the data set is empty: there is nothing to make a batch of")
        if not self._pool:
            raise ValueError(f"data.filter lets none of {self.num_records:,} records pass")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be at least 1")
        if self.limit > self._pool:
            raise ValueError(
                f"data.limit is {self.limit:,}, and there are {self._pool:,} records; lower it, or set "
                "it to 0 to take them all"
            )
        if self.mixture and (self.limit or self.passing is not None):
            raise ValueError(
                "data.limit and data.filter are for one source of data; give the parts of a mixture weights"
            )
        if self.lengths is not None and self.lengths.shape != (self.num_records, 2):
            raise ValueError(f"there are {len(self.lengths)} lengths for {self.num_records} records")
        if self.mixture:
            if sum(part.size for part in self.mixture) != self.num_records:
                raise ValueError(f"the parts of the mixture hold not {self.num_records} records together")
            for part, share in zip(self.mixture, _shares(self.mixture), strict=True):
                if part.size < 1 or part.weight <= 0 or share < 1:
                    raise ValueError(
                        f"a part of {part.size} records at weight {part.weight} is never read; give it "
                        f"records and a weight of at least one in {_BLOCK:,}, or leave it out"
                    )

    @property
    def chosen(self) -> Int[np.ndarray, " n"]:
        """Every record that batches are made of, in ascending order."""
        pool = np.arange(self.num_records) if self.passing is None else self.passing
        return pool[_choice(len(pool), self.limit, self.seed)] if self.limit else pool

    def indices(self, step: int) -> Int[np.ndarray, " b"]:
        """Source indices of the records in batch `step`, counted from 0."""
        if self.lengths is None:
            return self._at(np.arange(step * self.batch_size, (step + 1) * self.batch_size))
        window, place = divmod(step, _SORTED_STEPS)
        places = _SORTED_STEPS * self.batch_size
        records = self._at(np.arange(window * places, (window + 1) * places))
        together = self.lengths[records].sum(axis=1)
        ordered = records[np.argsort(together, kind="stable")].reshape(_SORTED_STEPS, -1)
        return ordered[np.random.default_rng([self.seed, window, _WINDOWS]).permutation(_SORTED_STEPS)[place]]

    def longest(self, step: int) -> tuple[int, int] | None:
        """Tokens of the longest prompt and of the longest response in batch `step`; None without lengths."""
        if self.lengths is None:
            return None
        prompt, response = self.lengths[self.indices(step)].max(axis=0).tolist()
        return prompt, response

    def records(self, steps: int) -> Int[np.ndarray, " n"]:
        """Every record whose length decides what is in the first `steps` batches, in ascending order."""
        windows = -(-steps // _SORTED_STEPS)
        return np.unique(self._at(np.arange(windows * _SORTED_STEPS * self.batch_size)))

    def epoch(self, step: int) -> float:
        """How many epochs are done when `step` batches are; of a mixture, on average over its records."""
        return step * self.batch_size / (self.limit or self._pool)

    @property
    def _pool(self) -> int:
        """How many records there are to choose from."""
        return self.num_records if self.passing is None else len(self.passing)

    def _at(self, places: Int[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
        """The records at these places of the endless sequence."""
        if self.limit or self.passing is not None:
            return self.chosen[_walked(self.limit or self._pool, (self.seed,), places)]
        if not self.mixture:
            return _walked(self.num_records, (self.seed,), places)
        sources, ranks = _assigned(self.mixture, self.seed, places)
        first = np.cumsum([0, *(part.size for part in self.mixture)])
        records = np.empty(len(places), np.int64)
        for number, part in enumerate(self.mixture):
            own = sources == number
            records[own] = first[number] + _walked(part.size, (self.seed, number), ranks[own])
        return records


def _walked(size: int, seed: tuple[int, ...], places: Int[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
    """Records at places of an endless walk that takes a new random order each epoch."""
    epochs, offsets = np.divmod(places, size)
    records = np.empty(len(places), np.int64)
    for epoch in np.unique(epochs):
        own = epochs == epoch
        records[own] = _order(size, (*seed, int(epoch)))[offsets[own]]
    return records


@lru_cache(maxsize=16)
def _order(size: int, seed: tuple[int, ...]) -> Int[np.ndarray, " n"]:
    return np.random.default_rng(list(seed)).permutation(size)


@lru_cache(maxsize=4)
def _choice(size: int, count: int, seed: int) -> Int[np.ndarray, " n"]:
    """So many of the records at random, in ascending order."""
    return np.sort(np.random.default_rng([seed, _CHOICE]).permutation(size)[:count])


def _shares(mixture: tuple[Part, ...]) -> Int[np.ndarray, " s"]:
    """How many of a block's places each source has, the largest remainders rounded up."""
    weights = np.array([part.weight for part in mixture])
    wanted = weights / weights.sum() * _BLOCK
    shares = np.floor(wanted).astype(np.int64)
    shares[np.argsort(shares - wanted, kind="stable")[: _BLOCK - shares.sum()]] += 1
    return shares


def _assigned(
    mixture: tuple[Part, ...], seed: int, places: Int[np.ndarray, " p"]
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Which source each place belongs to, and how many places before it belong to the same one."""
    blocks, offsets = np.divmod(places, _BLOCK)
    shares = _shares(mixture)
    sources, ranks = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    for block in np.unique(blocks):
        own = blocks == block
        source, rank = _block(tuple(shares.tolist()), seed, int(block))
        sources[own] = source[offsets[own]]
        ranks[own] = rank[offsets[own]] + block * shares[sources[own]]
    return sources, ranks


@lru_cache(maxsize=4)
def _block(
    shares: tuple[int, ...], seed: int, block: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Sources in a random order, and each one's rank among its like."""
    owners = np.repeat(np.arange(len(shares)), shares)
    sources = np.random.default_rng([seed, block, _SHARES]).permutation(owners)
    ranks = np.empty(_BLOCK, np.int64)
    for number, share in enumerate(shares):
        ranks[sources == number] = np.arange(share)
    return sources, ranks
