"""A source of published files: rows as they lie there, read by the format they were published in."""

import bisect
import itertools
import math
import os.path
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_jax.data.formats import Format
from vla_jax.data.images import ImageBytes, ImageFile, Pixels
from vla_jax.data.opening import open_rows
from vla_jax.data.rows import RowError, record_errors, row_errors
from vla_jax.data.schema import DataError, Picture, Record

# What a person may have meant to say; a longer one is a broken file, and would hold a tokenizer for seconds.
LONGEST_TEXT = 1_000_000


class Published:
    """Random access to the records of one published file; images are decoded when somebody looks at them.

    Args:
      path: the file or folder; see `opening.open_rows`.
      format: its layout; see formats/.
      images: the folder that its image paths start from; by default the one that holds the file.

    Raises:
      DataError: where the file is missing or holds no record.
    """

    def __init__(self, path: str | Path, format: Format, images: str | Path = ""):
        self.name, self._format = str(path), format
        self._rows = open_rows(path)
        where = Path(path)
        self._images = Path(images) if images else where if where.is_dir() else where.parent
        # Where the records of each row begin; a row that cannot be counted is one record, and bad.
        self._starts = (
            None if format.count is None else [0, *itertools.accumulate(self._counts(format.count))]
        )
        if not len(self):
            raise DataError(
                self.name, "whole file", "there is no usable record in it", "see whether it is whole"
            )
        self._repeated = self._find_repeated(format.identifier) if format.identifier else {}

    def __len__(self) -> int:
        return len(self._rows) if self._starts is None else self._starts[-1]

    @property
    def empty_rows(self) -> int:
        """Rows that are sound and hold no record, as one does whose answers are all rated alike."""
        return 0 if self._starts is None else sum(a == b for a, b in itertools.pairwise(self._starts))

    def __getitem__(self, index: int) -> Record:
        """A record; its images have not been opened.

        Raises:
          DataError: where it cannot be used.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} records; there is no record {index}")
        row, part = self._place(index)
        place = self._rows.place(row)
        with record_errors(self.name, self._part_of(place, row, part)):
            if row in self._repeated:
                first = self._rows.place(self._repeated[row])
                raise RowError(
                    f"has the {self._format.identifier!r} of {first}", "give each record one of its own"
                )
            record = self._format.records(self._rows[row], self._picture)[part]
            check_values(record)
        if self._format.keyed:
            return record
        return replace(record, key=f"{place}, {record.key}" if record.key else place)

    def texts(self) -> Iterator[str]:
        """Every question and answer; bad records and images are passed over."""
        for record in self._readable():
            for turn in (*record.history, *record.further_turns):
                yield from (turn.question, turn.answer)
            yield from (record.question, *record.responses.values())

    def object_names(self) -> set[str]:
        """Every name of an object, except in bad records."""
        return {o.name for record in self._readable() for o in record.objects} - {""}

    def _readable(self) -> Iterator[Record]:
        for index in range(len(self)):
            with suppress(DataError):
                yield self[index]

    def _counts(self, count: Any) -> Iterator[int]:
        for row in range(len(self._rows)):
            try:
                with row_errors():
                    yield count(self._rows[row])
            except RowError:
                yield 1

    def _place(self, index: int) -> tuple[int, int]:
        """(row, place among the row's records)."""
        if self._starts is None:
            return index, 0
        row = bisect.bisect_right(self._starts, index) - 1
        return row, index - self._starts[row]

    def _part_of(self, place: str, row: int, part: int) -> str:
        """What an error calls a record: each of a row's bad ones counts."""
        several = 1 if self._starts is None else self._starts[row + 1] - self._starts[row]
        return place if several == 1 else f"{place}, record {part + 1} of {several}"

    def _find_repeated(self, field: str) -> dict[int, int]:
        """Row -> the row before it with the same identifier; what is neither text nor number is none."""
        first: dict[Any, int] = {}
        repeated = {}
        for row, value in enumerate(self._rows.column(field)):
            if isinstance(value, str | int | float) and first.setdefault(value, row) != row:
                repeated[row] = first[value]
        return repeated

    def _picture(self, held: Any) -> Picture:
        """What a row says of an image, as an image."""
        if isinstance(held, Mapping) and ("bytes" in held or "path" in held):
            held = held.get("bytes") or held.get("path")
        if isinstance(held, bytes):
            return ImageBytes(held)
        if isinstance(held, np.ndarray) and held.ndim == 3 and held.shape[2] == 3 and held.dtype == np.uint8:
            return Pixels(held)
        if not isinstance(held, str):
            raise RowError(f"has an image that is neither a path nor bytes: {held!r:.80}", "write its path")
        return ImageFile(self._inside(held))

    def _inside(self, name: str) -> Path:
        """A path below the image folder. Links in it may lead anywhere; the path itself may not."""
        path = Path(os.path.normpath(self._images / name))
        folder = Path(os.path.normpath(self._images))
        if "\0" in name or not path.is_relative_to(folder) or path == folder:
            raise RowError(
                f"names an image outside of {folder}: {name!r:.200}",
                "give a path below the folder, or set data.images to the folder they start from",
            )
        return path


def check_values(record: Record) -> None:
    """Refuses what no reader of the record could use.

    Raises:
      RowError: where a text is longer than any answer, a rating or box is not finite, a span leaves its text,
        a role has no response, or a mask is not as large as the first image.
    """
    turns = (*record.history, *record.further_turns)
    texts = {"question": record.question, "system message": record.system, **record.responses}
    texts |= {f"question of turn {i}": turn.question for i, turn in enumerate(turns)}
    texts |= {f"answer of turn {i}": turn.answer for i, turn in enumerate(turns)}
    texts |= {f"name of object {i}": found.name for i, found in enumerate(record.objects)}
    for what, words in texts.items():
        if len(words) > LONGEST_TEXT:
            raise RowError(f"has a {what!r} of {len(words):,} characters", f"keep it below {LONGEST_TEXT:,}")
        try:
            words.encode("utf-8")
        except UnicodeEncodeError:
            raise RowError(
                f"has a {what!r} that is no Unicode text", "correct it or remove the record"
            ) from None
    for what, by_role in (("ratings", record.ratings), ("spans", record.spans)):
        if strange := set(by_role) - set(record.responses):
            raise RowError(f"has {what} of {min(strange)!r}, which is no response", "correct the record")
    for role, spans in record.spans.items():
        for start, end in spans:
            if not 0 <= start < end <= len(record.responses[role]):
                problem = f"has a span {start} to {end} that leaves its {role!r} or holds nothing"
                raise RowError(problem, "count characters from 0, the end not included")
    for role, rating in record.ratings.items():
        if not math.isfinite(rating):
            raise RowError(f"rates {role!r} as {rating}", "correct it or remove the record")
    for found in record.objects:
        if found.box is not None and not all(map(math.isfinite, found.box)):
            raise RowError(f"has a box that is not four numbers: {found.box!r}", "write [x0, y0, x1, y1]")
        if found.mask is not None and record.images and found.mask.shape != record.images[0].size:
            raise RowError(
                f"has a mask of {found.mask.shape} in an image of {record.images[0].size}",
                "make it as large as the image",
            )
