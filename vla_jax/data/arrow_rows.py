"""Rows that lie in Arrow's columns: parquet shards, or a folder that `datasets` saved."""

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vla_jax.data.rows import Row, Rows, reason
from vla_jax.data.schema import DataError

# The words by which Hugging Face's hub tells splits apart in the names of files and folders.
_SPLITS = {
    "train": "train|training",
    "validation": "validation|valid|val|dev|development",
    "test": "test|testing|eval|evaluation",
}


class ArrowRows(Rows):
    """Parquet shards, or a folder that `datasets` saved: mapped into memory, embedded images left encoded.

    Args:
      path: the folder or file.
      shards: the parquet files; None where `datasets` saved the folder. `datasets` writes them once, in a
        form with random access, into its own cache.

    Raises:
      DataError: where a shard is broken, or shards are of several splits.
    """

    def __init__(self, path: Path, shards: Sequence[Path] | None = None):
        # Takes half a second, and most runs read JSON.
        import datasets

        self._shards: list[str] = []
        if shards is None:
            loaded = datasets.load_from_disk(str(path))
        else:
            _check_one_split(path, shards)
            # Where the rows of each shard end.
            self._ends = list(itertools.accumulate(map(_rows_of, shards)))
            if len(shards) > 1:
                self._shards = [str(shard.relative_to(_folder(path))) for shard in shards]
            try:
                loaded = datasets.Dataset.from_parquet([str(shard) for shard in shards])
            except Exception as error:
                broken = _first_broken(shards)
                problem = f"cannot be read ({reason(error if broken is None else broken[1])})"
                where = str(path if broken is None else broken[0])
                raise DataError(where, "whole file", problem, "fetch the file again") from error
        self._rows = loaded.with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[int(index)].to_pylist()[0]

    def place(self, index: int) -> str:
        """Its row, in its own file where there are several."""
        if not self._shards:
            return f"row {index}"
        shard = bisect.bisect_right(self._ends, index)
        return f"{self._shards[shard]}, row {index - (self._ends[shard - 1] if shard else 0)}"

    def column(self, field: str) -> Iterator[Any]:
        """Read by itself: another column may hold every image."""
        if field not in self._rows.column_names:
            return iter([None] * len(self))
        return iter(self._rows.select_columns(field).with_format(None)[field])


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _check_one_split(path: Path, shards: Sequence[Path]) -> None:
    """Refuses shards whose names say that they are of several splits.

    Raises:
      DataError: says how to choose one.
    """
    found = {
        split: shard
        for shard in shards
        for split, words in _SPLITS.items()
        if re.search(rf"(?<![a-z])({words})(?![a-z])", str(shard.relative_to(_folder(path))).lower())
    }
    if len(found) > 1:
        examples = ", ".join(str(shard.relative_to(_folder(path))) for shard in found.values())
        raise DataError(
            str(path),
            "whole folder",
            f"holds shards of several splits: {examples}",
            f"name those of one as data.path, as in {path}/{next(iter(found))}*.parquet, or their own folder",
        )


def _rows_of(shard: Path) -> int:
    """How many rows a parquet file says that it has.

    Raises:
      DataError: where it is cut off, empty, or no parquet at all.
    """
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(shard).num_rows
    except (pyarrow.ArrowException, OSError) as error:
        problem = f"is no whole parquet file ({reason(error)})"
        raise DataError(str(shard), "whole file", problem, "fetch the file again") from None


def _first_broken(shards: Sequence[Path]) -> tuple[Path, Exception] | None:
    """The first shard whose pages cannot be read, and why: `datasets` does not say which it was."""
    import pyarrow.parquet

    for shard in shards:
        try:
            for _ in pyarrow.parquet.ParquetFile(shard).iter_batches():
                pass
        except (pyarrow.ArrowException, OSError) as error:
            return shard, error
    return None
