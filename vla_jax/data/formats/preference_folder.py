"""Our own layout: preference records with the names, boxes and masks of what is in the image.

Each row has `image` (path relative to the file) or `images` (a list), `question` or `prompt`, `chosen`,
`rejected`, and optionally `objects` (names of what is in the image), `boxes` and `masks`. `boxes` is a list
whose entries are four numbers, or objects with `box` (or `bbox`) and a name (`name`, `category`, `label` or
`object`); or one object that maps names to boxes. Four bare numbers take the name at the same place of
`objects` where both lists are equally long.

`masks` is written in the same ways, with `mask` for `box`. A mask is COCO's run lengths (`size` and
`counts`), or the path of a PNG as large as the first image, black where the object is not. Two lists of boxes
and masks go together by place, null standing for what an object has not; else they go together by name. An
object that has a mask and no box lies in the box around its mask.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
from jaxtyping import Bool

from vla_jax.data.formats.fields import Format, OpenImage, pair, pictures
from vla_jax.data.formats.masks import from_runs
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import Box, Object, Picture, Record
from vla_jax.data.tokenizer import IMAGE_TOKEN

BOX_FORMATS = ("xyxy_pixels", "xywh_pixels", "xyxy_normalised")
_NAMES = ("name", "category", "label", "object")
# What an entry of each field may call its value, and how one is written.
_VALUES = {"boxes": ("box", "bbox"), "masks": ("mask",)}
_EXAMPLES = {"boxes": "[x0, y0, x1, y1]", "masks": '{"size": [height, width], "counts": "..."}'}
_RUNS = {"size", "counts"}
# Of boxes, in pixels or shares: no image reaches there.
_FARTHEST = 1e9


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
    objects = _objects(row, images, image, box_format)
    return [Record("", images, question, responses, objects=objects)]


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


def _objects(row: Row, images: Sequence[Picture], image: OpenImage, box_format: str) -> tuple[Object, ...]:
    """Those with a box or a mask first, then those that have only a name."""
    names, boxes, masks = _names(row), _named(row, "boxes"), _named(row, "masks")
    for field, entries in (("boxes", boxes), ("masks", masks)):
        if entries and not images:
            raise RowError(f"has {field} and names no image", f"add 'image', or remove the {field}")
    by_place = boxes and masks and isinstance(row["boxes"], list) and isinstance(row["masks"], list)
    placed = []
    for name, box, mask in (_by_place if by_place else _by_name)(boxes, masks):
        if box is None and mask is None and name in names:
            continue
        # What is missing of both is named by the field that the entry comes from.
        lies = _box(box, *images[0].size, box_format) if box is not None or (boxes and mask is None) else None
        shown = _mask(mask, *images[0].size, image) if mask is not None or not boxes else None
        placed.append(Object(name, lies, shown))
    seen = {o.name for o in placed}
    return (*placed, *(Object(name) for name in names if name not in seen))


def _names(row: Row) -> list[str]:
    names = row.get("objects") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RowError("has 'objects' that is no list of names", 'write ["cat", "dog"]')
    return names


def _named(row: Row, field: str) -> list[tuple[str, Any]]:
    """(name, value) of every entry of `boxes` or `masks`; None where it has no value."""
    held, names = row.get(field) or [], _names(row)
    if isinstance(held, Mapping) and not held.keys() >= _RUNS:
        entries = []
        for name, value in held.items():
            several = isinstance(value, list) and value and not isinstance(value[0], int | float)
            entries += [(name, each) for each in (value if several else [value])]
        return entries
    if not isinstance(held, list):
        raise RowError(f"has {field!r} that is no list", f"write [{_EXAMPLES[field]}, ...]")
    entries = []
    for i, entry in enumerate(held):
        if isinstance(entry, Mapping) and not entry.keys() >= _RUNS:
            name = next((str(entry[key]) for key in _NAMES if key in entry), "")
            entries.append((name, next((entry[key] for key in _VALUES[field] if key in entry), None)))
        else:
            entries.append((names[i] if len(names) == len(held) else "", entry))
    return entries


_Placed = list[tuple[str, Any, Any]]


def _by_place(boxes: Sequence[tuple[str, Any]], masks: Sequence[tuple[str, Any]]) -> _Placed:
    """(name, box, mask) of every object of two lists, which either may name."""
    if len(boxes) != len(masks):
        problem = f"has {len(boxes)} boxes and {len(masks)} masks"
        raise RowError(problem, "write null where an object has only one of them")
    placed = []
    for (name, box), (other, mask) in zip(boxes, masks, strict=True):
        if name and other and name != other:
            raise RowError(
                f"has a mask of {other!r} at the place of the box of {name!r}", "put them in one order"
            )
        placed.append((name or other, box, mask))
    return placed


def _by_name(boxes: Sequence[tuple[str, Any]], masks: Sequence[tuple[str, Any]]) -> _Placed:
    """(name, box, mask) of every object; those of one name in the order in which they stand."""
    placed = []
    for name in dict.fromkeys(name for name, _ in (*boxes, *masks)):
        of_name = [[value for other, value in entries if other == name] for entries in (boxes, masks)]
        if all(of_name) and len(of_name[0]) != len(of_name[1]):
            raise RowError(
                f"has {len(of_name[0])} boxes and {len(of_name[1])} masks of {name!r}",
                "write null where an object has only one of them",
            )
        placed += [(name, box, mask) for box, mask in zip_longest(*of_name)]
    return placed


def _box(box: Any, height: int, width: int, box_format: str) -> Box:
    numeric = isinstance(box, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in box
    )
    # Whole numbers may be larger than any float.
    if not numeric or len(box) != 4 or not all(abs(value) < _FARTHEST for value in box):
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


def _mask(mask: Any, height: int, width: int, image: OpenImage) -> Bool[np.ndarray, "y x"]:
    """A mask of an image of this size."""
    if isinstance(mask, str):
        if not mask.lower().endswith(".png"):
            raise RowError(
                f"names a mask that is no PNG: {mask!r:.200}", "save it as PNG, which loses nothing"
            )
        picture = image(mask)
        _check_size(picture.size, height, width)
        decoded = np.asarray(picture.pixels().any(axis=-1))
    elif isinstance(mask, Mapping) and mask.keys() >= _RUNS:
        _check_size(mask["size"], height, width)
        decoded = from_runs(mask["counts"], height, width)
    else:
        raise RowError(
            f"has a mask that is neither run lengths nor the path of a PNG: {mask!r:.80}",
            f"write {_EXAMPLES['masks']} or its path",
        )
    if not decoded.any():
        raise RowError("has a mask that covers nothing", "correct or remove it")
    return decoded


def _check_size(size: Any, height: int, width: int) -> None:
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise RowError(
            f"has a mask of [height, width] {size!r:.80} in an image of {[height, width]}",
            "make it as large as the image",
        )
