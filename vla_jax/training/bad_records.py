"""The list of the records that were skipped: written as they are met, read again by a run that goes on."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from vla_jax.data import DataError, RecordReport

_FIELDS = ("source", "record", "problem", "remedy")


class ListedReport(RecordReport):
    """A report that writes every record it skips into a file, a JSON line each.

    Args:
      path: the file; it and its folder appear with the first bad record.
      goes_on: whether the run was here before; then what it skipped is skipped and counted already.
    """

    def __init__(self, path: Path, goes_on: bool = False):
        super().__init__()
        self._path = path
        if goes_on:
            for error in _read(self._path):
                super().skipped(error)
            self._rewrite()
        else:
            self._path.unlink(missing_ok=True)

    @property
    def path(self) -> Path:
        """The list."""
        return self._path

    def skipped(self, error: DataError) -> None:
        """Notes a record that was not encoded; see `RecordReport`."""
        before = len(self.bad)
        try:
            super().skipped(error)
        finally:
            if len(self.bad) > before:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    file.write(_line(error))

    def _rewrite(self) -> None:
        """Writes the list anew where a line was torn by a kill: it would swallow the next one."""
        whole = "".join(_line(error) for error in self.bad.values())
        if self._path.is_file() and self._path.read_bytes() != whole.encode():
            partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            partial.write_text(whole)
            os.replace(partial, self._path)


def _line(error: DataError) -> str:
    return json.dumps({name: getattr(error, name) for name in _FIELDS}) + "\n"


def _read(path: Path) -> Iterator[DataError]:
    """The records of a list, without lines that are none: a run may be killed while it writes."""
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").split("\n"):
        try:
            row = json.loads(line)
            yield DataError(*(row[name] for name in _FIELDS))
        except (ValueError, KeyError, TypeError):
            continue
