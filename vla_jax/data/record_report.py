"""What happens to records on their way into batches."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from vla_jax.data.encoding import Encoded
from vla_jax.data.schema import DataError


class TooManyBadRecordsError(DataError):
    """The record with which more are bad than may be."""


class Seen(NamedTuple):
    """What is noted of a record that was encoded; small, since it travels between processes."""

    record_id: int
    box_origin: str
    truncated: bool

    @classmethod
    def of(cls, encoded: Encoded) -> "Seen":
        """Of an encoded record."""
        return cls(encoded.record_id, encoded.box_origin, encoded.truncated > 0)


@dataclass
class RecordReport:
    """What happened to the records of the batches that were handed out.

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

    def saw(self, seen: Seen) -> None:
        """Notes a record that was encoded."""
        self.box_origins[seen.record_id] = seen.box_origin
        if seen.truncated:
            self.truncated.add(seen.record_id)

    def skipped(self, error: DataError) -> None:
        """Notes a record that was not.

        Raises:
          TooManyBadRecordsError: where it is one more than may be.
        """
        self.bad[f"{error.source}, {error.record}"] = error
        if self.most_bad is not None and len(self.bad) > self.most_bad:
            raise TooManyBadRecordsError(
                error.source,
                error.record,
                f"{error.problem}; with it {len(self.bad)} records are bad, and {self.most_bad} may be",
                f"{error.remedy}, or raise max_bad_fraction",
            )

    @property
    def origins(self) -> Counter[str]:
        """How many records found their key object in which way."""
        return Counter(self.box_origins.values())
