"""Random access to the rows of a file as it was published, whatever kind of file it is.

A row is a dict of plain Python values. Nothing is said here about what its fields mean: that is formats/.
"""

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_jax.data.schema import DataError

Row = Mapping[str, Any]

_IMAGES = (".jpg", ".jpeg", ".png")


class RowError(ValueError):
    """A row that cannot be used; whoever knows its place makes a `DataError` of it.

    Args:
      problem: what is wrong.
      remedy: what the user can do about it.
    """

    def __init__(self, problem: str, remedy: str):
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy


class Rows(ABC):
    """The rows of one file, or of one prepared data set."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int, /) -> Row:
        """A row.

        Raises:
          RowError: where it cannot be read.
        """

    def place(self, index: int) -> str:
        """What an error calls the row."""
        return f"row {index}"

    def column(self, field: str) -> Iterator[Any]:
        """A field of every row, None where it is missing or the row cannot be read; opens no image."""
        for index in range(len(self)):
            try:
                yield self[index].get(field)
            except RowError:
                yield None


def open_rows(path: str | Path) -> Rows:
    """The rows of a file or folder, told apart by what is there.

    `.jsonl` and `.json` (a list of objects, or an object a line), `.parquet` (a file, or a folder of shards),
    a folder that `datasets` saved, a folder with a JSON file beside each image, and `tfds:NAME[:SPLIT]`, a
    data set that TFDS prepared as array_record.

    Raises:
      DataError: where there is none of these.
    """
    where = str(path)
    if where.startswith("tfds:"):
        return TfdsRows(where)
    path = Path(path)
    if path.is_dir():
        if (path / "state.json").is_file():
            return ArrowRows(path)
        if shards := sorted(path.rglob("*.parquet")):
            return ArrowRows(path, shards)
        if (path / "dataset_info.json").is_file():
            return TfdsRows(f"tfds:{path}")
        if any(path.glob("*.json")):
            return JsonBesideImages(path)
        raise DataError(
            where,
            "whole folder",
            "holds no parquet shards, no data set saved by `datasets` or TFDS, no JSON beside images",
            "give the file itself, or the folder that holds one of these",
        )
    if not path.is_file():
        raise DataError(where, "data.path", "there is no such file", "give the path of the published file")
    match path.suffix.lower():
        case ".parquet":
            return ArrowRows(path, [path])
        case ".json":
            return JsonLines(path) if _holds_lines(path) else JsonList(path)
        case _:
            return JsonLines(path)


class JsonLines(Rows):
    """An object a line; blank lines are passed over.

    Args:
      path: the file. It is read through once, for where its lines begin; a line is parsed when somebody asks.
    """

    def __init__(self, path: Path):
        self.path = path
        starts, lengths, numbers, at = [], [], [], 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip(b"\xef\xbb\xbf \t\r\n"):
                    starts.append(at)
                    lengths.append(len(line))
                    numbers.append(number)
                at += len(line)
        self._starts, self._lengths, self._numbers = map(np.array, (starts, lengths, numbers))

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        with self.path.open("rb") as file:
            file.seek(int(self._starts[index]))
            return _object(file.read(int(self._lengths[index])).removeprefix(codecs.BOM_UTF8))

    def place(self, index: int) -> str:
        """Its line, counted from 1, blank ones too."""
        return f"line {self._numbers[index]}"


class JsonList(Rows):
    """A JSON list of objects, held in memory.

    Args:
      path: the file.

    Raises:
      DataError: where it is no such list.
    """

    def __init__(self, path: Path):
        try:
            rows = json.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                str(path), "whole file", f"is not UTF-8 ({error.reason})", "save it as UTF-8"
            ) from None
        except json.JSONDecodeError as error:
            problem = f"is not valid JSON ({error.msg} in line {error.lineno}, column {error.colno})"
            raise DataError(str(path), "whole file", problem, "fetch the file again") from None
        if not isinstance(rows, list):
            raise DataError(str(path), "whole file", "is no list of objects", "write [{...}, {...}]")
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return _mapping(self._rows[index])


class JsonBesideImages(Rows):
    """A folder where each image has a JSON file of the same name; the row names the image in `image`.

    Args:
      path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self._files = [file.name for file in sorted(path.glob("*.json"))]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Row:
        file = self.path / self._files[index]
        content = file.read_bytes()
        try:
            row = _object(content)
        except RowError:
            # ReasonSeg holds files that were saved on Windows.
            row = _object(content.decode("cp1252", errors="replace").encode())
        image = next((name for kind in _IMAGES if (name := file.with_suffix(kind)).is_file()), None)
        return {**row, "image": image.name if image else file.with_suffix(_IMAGES[0]).name}

    def place(self, index: int) -> str:
        """Its file."""
        return self._files[index]


class ArrowRows(Rows):
    """Parquet shards, or a folder that `datasets` saved: mapped into memory, embedded images left encoded.

    Args:
      path: the folder or file.
      shards: the parquet files; None where `datasets` saved the folder. `datasets` writes them once, in a
        form with random access, into its own cache.
    """

    def __init__(self, path: Path, shards: list[Path] | None = None):
        # Takes half a second, and most runs read JSON.
        import datasets

        if shards is None:
            loaded = datasets.load_from_disk(str(path))
        else:
            loaded = datasets.Dataset.from_parquet([str(shard) for shard in shards])
        if not isinstance(loaded, datasets.Dataset):
            raise DataError(str(path), "whole folder", "holds several splits", "give the folder of one split")
        self._rows = loaded.with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[int(index)].to_pylist()[0]

    def column(self, field: str) -> Iterator[Any]:
        """Read by itself: another column may hold every image."""
        if field not in self._rows.column_names:
            return iter([None] * len(self))
        return iter(self._rows.select_columns(field).with_format(None)[field])


class TfdsRows(Rows):
    """A data set that TFDS prepared as array_record; embedded images are left encoded.

    Args:
      name: `tfds:NAME[:SPLIT]`, NAME being a folder of a prepared data set or what TFDS calls it. The split
        is `train` where none is named.
    """

    def __init__(self, name: str):
        # Takes seconds, and most runs read JSON.
        import tensorflow_datasets as tfds

        _, data_set, *split = name.split(":")
        builder = (
            tfds.builder_from_directory(data_set)
            if (Path(data_set) / "dataset_info.json").is_file()
            else tfds.builder(data_set)
        )
        images = {
            key: tfds.decode.SkipDecoding()
            for key, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        self._rows = builder.as_data_source(split[0] if split else "train", decoders=images or None)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return {key: _plain(value) for key, value in self._rows[int(index)].items()}


def _plain(value: Any) -> Any:
    """What TFDS gives, as Python writes it: text for bytes that are text."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object):
        return [_plain(each) for each in value]
    return value


def _holds_lines(path: Path) -> bool:
    """Whether a `.json` file holds an object a line rather than a list."""
    with path.open("rb") as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def _object(content: bytes) -> Row:
    try:
        return _mapping(json.loads(content.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise RowError(f"is not UTF-8 ({error.reason})", "save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON ({error.msg} at column {error.colno})"
        raise RowError(problem, "complete or remove the line") from None


def _mapping(value: Any) -> Row:
    if not isinstance(value, Mapping):
        raise RowError("is no JSON object", 'write {"image": ..., "prompt": ...}')
    return value
