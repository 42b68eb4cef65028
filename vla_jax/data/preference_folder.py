"""Preference records from a JSON-lines file with images beside it.

Each line is an object with `image` (path relative to the file) or `images` (a list of one), `question` or
`prompt`, `chosen`, `rejected`, and optionally `objects` (names of what is in the image) and `boxes`.
`boxes` is a list whose entries are four numbers, or objects with `box` (or `bbox`) and a name (`name`,
`category`, `label` or `object`); or one object that maps names to boxes. Four bare numbers take the name at
the same place of `objects` where both lists are equally long. `box_format` says what the numbers mean.
"""

import codecs
import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_jax.data.images import UnreadableImageError, read_image
from vla_jax.data.schema import CHOSEN, REJECTED, Box, DataError, Object, Record
from vla_jax.data.tokenizer import IMAGE_TOKEN

BOX_FORMATS = ("xyxy_pixels", "xywh_pixels", "xyxy_normalised")
_NAMES = ("name", "category", "label", "object")


class PreferenceFolder:
    """Random access to the records of one JSON-lines file; images are decoded when a record is read.

    Args:
      path: the JSON-lines file.
      box_format: how boxes are written; one of `BOX_FORMATS`.
      skip_bad_lines: leave out lines that are no valid record and list them in `bad`, instead of raising.

    Raises:
      DataError: where the file is missing or empty, or a line cannot be used.
    """

    def __init__(self, path: str | Path, box_format: str = "xyxy_pixels", skip_bad_lines: bool = False):
        if box_format not in BOX_FORMATS:
            raise ValueError(f"data.box_format is {box_format!r}; choose one of {', '.join(BOX_FORMATS)}")
        self.name, self.path, self.box_format = str(path), Path(path), box_format
        self.bad: list[DataError] = []
        self._rows: list[tuple[int, dict[str, Any]]] = []
        if not self.path.is_file():
            raise DataError(
                self.name, "data.path", "there is no such file", "give the path of a JSON-lines file"
            )
        content = self.path.read_bytes().removeprefix(codecs.BOM_UTF8)
        for number, line in enumerate(content.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                self._rows.append((number, self._parse(number, line)))
            except DataError as error:
                if not skip_bad_lines:
                    raise
                self.bad.append(error)
        if not self._rows:
            raise DataError(
                self.name, "whole file", "there is no usable record in it", "see the errors above"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        number, row = self._rows[index]
        image = self._image(number, row)
        return Record(
            key=f"line {number}",
            image=image,
            question=_question(row),
            responses={CHOSEN: row["chosen"], REJECTED: row["rejected"]},
            objects=self._objects(number, row, *image.shape[:2]),
        )

    def texts(self) -> Iterator[str]:
        """Every question and answer; no image is opened."""
        for _, row in self._rows:
            yield from (_question(row), row[CHOSEN], row[REJECTED])

    def object_names(self) -> set[str]:
        """Every name that stands in `objects` or beside a box, except in bad records."""
        names: set[str] = set()
        for number, row in self._rows:
            with contextlib.suppress(DataError):
                names.update(self._names(number, row), (name for name, _ in self._named_boxes(number, row)))
        return names - {""}

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self._error(number, f"is not UTF-8 ({error.reason})", "save the file as UTF-8") from None
        except json.JSONDecodeError as error:
            problem = f"is not valid JSON ({error.msg} at column {error.colno})"
            raise self._error(number, problem, "complete or remove the line") from None
        if not isinstance(row, dict):
            raise self._error(number, "is no JSON object", 'write {"image": ..., "question": ...}')
        for role in (CHOSEN, REJECTED):
            if role not in row:
                raise self._error(number, f"has no field {role!r}", f"add {role!r} or remove the record")
            if not isinstance(row[role], str):
                raise self._error(number, f"has a {role!r} that is no text", "write it as a string")
            if not row[role].strip():
                raise self._error(number, f"has an empty {role!r}", "give it a text or remove the record")
        self._check_prompt(number, row)
        if not _image_names(row):
            raise self._error(number, "names no image", "add 'image': path relative to the file")
        return row

    def _check_prompt(self, number: int, row: Mapping[str, Any]) -> None:
        question = row.get("question", row.get("prompt"))
        if not isinstance(question, str) or not question.replace(IMAGE_TOKEN, "").strip():
            raise self._error(number, "has no field 'question' (or 'prompt')", "add the user's question")
        count = question.count(IMAGE_TOKEN)
        # `prompt` is the field of sets whose prompts are already laid out, placeholder and all.
        if "question" not in row and count != 1:
            raise self._error(
                number,
                f"has a 'prompt' with {count} {IMAGE_TOKEN} placeholders for one image",
                f"write {IMAGE_TOKEN} once in 'prompt', or use the field 'question' for a bare question",
            )
        if "question" in row and count:
            raise self._error(
                number,
                f"has {IMAGE_TOKEN} in 'question', where the chat template writes it",
                f"remove {IMAGE_TOKEN} or call the field 'prompt'",
            )

    def _image(self, number: int, row: Mapping[str, Any]) -> np.ndarray:
        names = _image_names(row)
        if len(names) != 1 or not isinstance(names[0], str):
            raise self._error(number, f"names {len(names)} images", "give one image a record")
        file = self.path.parent / names[0]
        try:
            return read_image(file)
        except FileNotFoundError:
            raise self._error(number, f"names an image that is missing: {file}", "restore the file") from None
        except UnreadableImageError as error:
            problem = f"names an image that cannot be read: {error}"
            raise self._error(number, problem, "replace the file") from None

    def _objects(self, number: int, row: Mapping[str, Any], height: int, width: int) -> tuple[Object, ...]:
        names = self._names(number, row)
        boxed = [
            Object(name, self._box(number, box, height, width))
            for name, box in self._named_boxes(number, row)
        ]
        seen = {o.name for o in boxed}
        return (*boxed, *(Object(name) for name in names if name not in seen))

    def _names(self, number: int, row: Mapping[str, Any]) -> list[str]:
        names = row.get("objects") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._error(number, "has 'objects' that is no list of names", 'write ["cat", "dog"]')
        return names

    def _named_boxes(self, number: int, row: Mapping[str, Any]) -> list[tuple[str, Any]]:
        boxes, names = row.get("boxes") or [], self._names(number, row)
        if isinstance(boxes, Mapping):
            entries = []
            for name, value in boxes.items():
                several = isinstance(value, list) and value and isinstance(value[0], list)
                entries += [(name, box) for box in (value if several else [value])]
            return entries
        if not isinstance(boxes, list):
            raise self._error(number, "has 'boxes' that is no list", "write [[x0, y0, x1, y1], ...]")
        entries = []
        for i, entry in enumerate(boxes):
            if isinstance(entry, Mapping):
                name = next((str(entry[field]) for field in _NAMES if field in entry), "")
                entries.append((name, entry.get("box", entry.get("bbox"))))
            else:
                entries.append((names[i] if len(names) == len(boxes) else "", entry))
        return entries

    def _box(self, number: int, box: Any, height: int, width: int) -> Box:
        numeric = isinstance(box, list) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in box
        )
        if not numeric or len(box) != 4 or not np.isfinite(box).all():
            raise self._error(
                number, f"has a box that is not four numbers: {box!r}", "write [x0, y0, x1, y1]"
            )
        x0, y0, x1, y1 = box
        if self.box_format == "xywh_pixels":
            x1, y1 = x0 + x1, y0 + y1
        elif self.box_format == "xyxy_normalised":
            x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
        elif max(box) <= 1:
            raise self._error(
                number,
                f"has a box within 1 pixel: {box!r}",
                "set data.box_format=xyxy_normalised if it is a share",
            )
        if not (-1 <= x0 < x1 <= width + 1 and -1 <= y0 < y1 <= height + 1):
            raise self._error(
                number,
                f"has a box {box!r} that is empty or leaves its {width}x{height} image",
                f"correct it, or set data.box_format to one of {', '.join(BOX_FORMATS)}",
            )
        return float(x0), float(y0), float(x1), float(y1)

    def _error(self, number: int, problem: str, remedy: str) -> DataError:
        return DataError(self.name, f"line {number}", problem, remedy)


def _question(row: Mapping[str, Any]) -> str:
    return row["question"] if "question" in row else row["prompt"].replace(IMAGE_TOKEN, "").strip()


def _image_names(row: Mapping[str, Any]) -> list[Any]:
    names = row.get("images") or row.get("image") or []
    return names if isinstance(names, list) else [names]
