"""Our own layout: preference records with the names and boxes of what is in the image.

Each row has `image` (path relative to the file) or `images` (a list), `question` or `prompt`, `chosen`,
`rejected`, and optionally `objects` (names of what is in the image) and `boxes`. `boxes` is a list whose
entries are four numbers, or objects with `box` (or `bbox`) and a name (`name`, `category`, `label` or
`object`); or one object that maps names to boxes. Four bare numbers take the name at the same place of
`objects` where both lists are equally long.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from vla_jax.data.formats.fields import Format, OpenImage, pair, pictures
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import Box, Object, Picture, Record
from vla_jax.data.tokenizer import IMAGE_TOKEN

BOX_FORMATS = ("xyxy_pixels", "xywh_pixels", "xyxy_normalised")
_NAMES = ("name", "category", "label", "object")


def format_with(box_format: str = "xyxy_pixels") -> Format:
    """The layout, its boxes written in one of `BOX_FORMATS`.

    Raises:
      ValueError: where there is no such one.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"data.box_format is {box_format!r}; choose one of {', '.join(BOX_FORMATS)}")
    return Format(partial(records, box_format=box_format), identifier="id")


def records(row: Row, image: OpenImage, box_format: str = "xyxy_pixels") -> Sequence[Record]:
    """One record."""
    responses = pair(row)
    images = pictures(row, image, ["images", "image"])
    question = _question(row, len(images))
    return [Record("", images, question, responses, objects=_objects(row, images, box_format))]


def _question(row: Row, images: int) -> str:
    words = row.get("question", row.get("prompt"))
    if not isinstance(words, str) or not words.replace(IMAGE_TOKEN, "").strip():
        raise RowError("has no field 'question' (or 'prompt')", "add the user's question")
    count = words.count(IMAGE_TOKEN)
    # `prompt` is the field of sets whose prompts are already laid out, placeholder and all.
    if "question" not in row and count != images:
        raise RowError(
            f"has a 'prompt' with {count} {IMAGE_TOKEN} placeholders for {images} images",
            f"write {IMAGE_TOKEN} once an image in 'prompt', or use the field 'question' for a bare question",
        )
    if "question" in row and count:
        raise RowError(
            f"has {IMAGE_TOKEN} in 'question', where the chat template writes it",
            f"remove {IMAGE_TOKEN} or call the field 'prompt'",
        )
    return words.replace(IMAGE_TOKEN, "").strip()


def _objects(row: Row, images: Sequence[Picture], box_format: str) -> tuple[Object, ...]:
    """Those with a box first, then those that have only a name."""
    names, named = _names(row), _named_boxes(row)
    if named and not images:
        raise RowError("has boxes and names no image", "add 'image', or remove the boxes")
    boxed = [Object(name, _box(box, *images[0].size, box_format)) for name, box in named]
    seen = {o.name for o in boxed}
    return (*boxed, *(Object(name) for name in names if name not in seen))


def _names(row: Row) -> list[str]:
    names = row.get("objects") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RowError("has 'objects' that is no list of names", 'write ["cat", "dog"]')
    return names


def _named_boxes(row: Row) -> list[tuple[str, Any]]:
    boxes, names = row.get("boxes") or [], _names(row)
    if isinstance(boxes, Mapping):
        entries = []
        for name, value in boxes.items():
            several = isinstance(value, list) and value and isinstance(value[0], list)
            entries += [(name, box) for box in (value if several else [value])]
        return entries
    if not isinstance(boxes, list):
        raise RowError("has 'boxes' that is no list", "write [[x0, y0, x1, y1], ...]")
    entries = []
    for i, entry in enumerate(boxes):
        if isinstance(entry, Mapping):
            name = next((str(entry[field]) for field in _NAMES if field in entry), "")
            entries.append((name, entry.get("box", entry.get("bbox"))))
        else:
            entries.append((names[i] if len(names) == len(boxes) else "", entry))
    return entries


def _box(box: Any, height: int, width: int, box_format: str) -> Box:
    numeric = isinstance(box, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in box
    )
    if not numeric or len(box) != 4 or not np.isfinite(box).all():
        raise RowError(f"has a box that is not four numbers: {box!r}", "write [x0, y0, x1, y1]")
    x0, y0, x1, y1 = box
    if box_format == "xywh_pixels":
        x1, y1 = x0 + x1, y0 + y1
    elif box_format == "xyxy_normalised":
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
    elif max(box) <= 1:
        raise RowError(
            f"has a box within 1 pixel: {box!r}", "set data.box_format=xyxy_normalised if it is a share"
        )
    if not (-1 <= x0 < x1 <= width + 1 and -1 <= y0 < y1 <= height + 1):
        raise RowError(
            f"has a box {box!r} that is empty or leaves its {width}x{height} image",
            f"correct it, or set data.box_format to one of {', '.join(BOX_FORMATS)}",
        )
    return float(x0), float(y0), float(x1), float(y1)
