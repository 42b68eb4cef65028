"""Rows that are JSON: an object a line, a list of objects, or a file beside each image."""

import codecs
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_jax.data.rows import Row, RowError, Rows
from vla_jax.data.schema import DataError

_IMAGES = (".jpg", ".jpeg", ".png")


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
      path: the file. What of it is not UTF-8 becomes text that only its own record is refused for.

    Raises:
      DataError: where it is no such list; it names the first row that cannot be parsed.
    """

    def __init__(self, path: Path):
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="surrogateescape")
        try:
            rows = parsed(text)
        except RowError as error:
            raise DataError(str(path), _first_broken(text), error.problem, "fetch the file again") from None
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


def holds_lines(path: Path) -> bool:
    """Whether a `.json` file holds an object a line rather than a list."""
    with path.open("rb") as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def parsed(text: str) -> Any:
    """What a JSON text says; a whole number of more digits than Python reads is infinite.

    Raises:
      RowError: where it is no JSON, or is nested deeper than Python reads.
    """
    try:
        return json.loads(text, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise RowError(f"is not valid JSON ({error.msg} at {where})", "complete or remove the line") from None
    except RecursionError:
        raise RowError("is nested too deeply to be read", "correct or remove the record") from None


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= sys.int_info.default_max_str_digits else float(digits)


def _first_broken(text: str) -> str:
    """The first row of a list that cannot be parsed, found by parsing one after the other.

    Whole lists are not parsed like this: rows of their own would not share the names of their fields.
    """
    decoder, row = json.JSONDecoder(parse_int=_whole_number), 0
    at = len(text) - len(text.lstrip())
    if not text[at:].startswith("["):
        return "whole file"
    try:
        while text[at : at + 1] in ("[", ","):
            at += 1
            at += len(text[at : at + 4096]) - len(text[at : at + 4096].lstrip())
            _, at = decoder.raw_decode(text, at)
            at += len(text[at : at + 4096]) - len(text[at : at + 4096].lstrip())
            row += 1
    except (json.JSONDecodeError, RecursionError):
        return f"row {row}"
    return f"row {row - 1}, or what follows it"


def _object(content: bytes) -> Row:
    try:
        return _mapping(parsed(content.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise RowError(f"is not UTF-8 ({error.reason})", "save the file as UTF-8") from None


def _mapping(value: Any) -> Row:
    if not isinstance(value, Mapping):
        raise RowError("is no JSON object", 'write {"image": ..., "prompt": ...}')
    return value
