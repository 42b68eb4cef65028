"""Several sources as one."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vla_jax.data.plan import Part
from vla_jax.data.published import Published
from vla_jax.data.schema import Record


class Mixture:
    """The records of several files, one file after the other; keys begin with the name of their file.

    Args:
      sources: the files.
      weights: of the places in batches, each source's share; see `plan.BatchPlan`.

    Raises:
      ValueError: where two sources have the same name, so that their records would have the same keys.
    """

    name = "mixture"

    def __init__(self, sources: Sequence[Published], weights: Sequence[float]):
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise ValueError(
                f"data.mixture names a file twice: {', '.join(names)}; give it once, with its weight"
            )
        self._sources = list(sources)
        self._ends = list(itertools.accumulate(len(source) for source in sources))
        self.parts = tuple(Part(len(source), weight) for source, weight in zip(sources, weights, strict=True))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def empty_rows(self) -> int:
        """Rows of all sources that hold no record."""
        return sum(source.empty_rows for source in self._sources)

    def __getitem__(self, index: int) -> Record:
        """A record of one of the sources.

        Raises:
          DataError: where it cannot be used; it names the source's own file.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"the mixture has {len(self)} records; there is no record {index}")
        number = bisect.bisect_right(self._ends, index)
        source = self._sources[number]
        record = source[index - (self._ends[number] - len(source))]
        return replace(record, key=f"{source.name}, {record.key}")

    def texts(self) -> Iterator[str]:
        """Every question and answer; bad records and images are passed over."""
        return itertools.chain.from_iterable(source.texts() for source in self._sources)

    def object_names(self) -> set[str]:
        """Every name of an object, except in bad records."""
        return set().union(*(source.object_names() for source in self._sources))
