"""Random access to the rows of a file as it was published; its readers are json_rows, arrow_rows, tfds_rows.

A row is a dict of plain Python values. Nothing is said here about what its fields mean: that is formats/.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vla_jax.data.images import UnreadableImageError
from vla_jax.data.schema import DataError

Row = Mapping[str, Any]


class RowError(ValueError):
    """A row that cannot be used; whoever knows its place makes a `DataError` of it.

    Args:
      problem: what is wrong.
      remedy: what the user can do about it.
    """

    def __init__(self, problem: str, remedy: str):
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy


@contextmanager
def row_errors() -> Iterator[None]:
    """Makes a `RowError` of whatever goes wrong while a row is read.

    Files hold what nobody thought of, and the libraries that parse them raise what they like. A fault of our
    own comes out as a `RowError` too, its type and text kept: that good rows of every layout are read is for
    the tests to see.

    Raises:
      RowError: for any other exception than a `DataError`, which names its record already.
    """
    try:
        yield
    except (RowError, DataError):
        raise
    except UnreadableImageError as error:
        raise RowError(error.problem, error.remedy) from None
    except Exception as error:
        raise RowError(f"cannot be read ({reason(error)})", "correct or remove the record") from error


@contextmanager
def record_errors(source: str, record: str) -> Iterator[None]:
    """Makes a `DataError` that names the record of whatever goes wrong while it is read; see `row_errors`.

    Args:
      source: the file or data set.
      record: the record's place in it.

    Raises:
      DataError: for any other exception.
    """
    try:
        with row_errors():
            yield
    except RowError as error:
        raise DataError(source, record, error.problem, error.remedy) from error.__cause__


def reason(error: Exception) -> str:
    """An exception's type and text, as a message quotes them."""
    return f"{type(error).__name__}: {str(error) or 'no more is said'}"


class Rows(ABC):
    """The rows of one file, or of one prepared data set."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int, /) -> Row:
        """A row.

        Raises:
          RowError: where it cannot be read; so may whatever else its library raises mean.
        """

    def place(self, index: int) -> str:
        """What an error calls the row."""
        return f"row {index}"

    def column(self, field: str) -> Iterator[Any]:
        """A field of every row, None where it is missing or the row cannot be read; opens no image."""
        for index in range(len(self)):
            try:
                with row_errors():
                    value = self[index].get(field)
            except RowError:
                value = None
            yield value
