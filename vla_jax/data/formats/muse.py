"""MUSE: questions about several objects of an image, answered in text with `{seg}` at each object's mask.

Source: Ren et al. 2023, PixelLM; `muse_train.json`, `muse_val.json`, `muse_test_less.json`,
`muse_test_many.json`. Masks are polygons or run lengths, as COCO writes them.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vla_jax.data.formats.fields import Format, OpenImage, listed, picture, question_of, text
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import CHOSEN, Object, Record

# Stands in a response where an object's mask belongs, in the order of the record's objects.
SEGMENT = "{seg}"


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record a question; its objects are those that the answer points at, in its order."""
    height, width = (_whole(row, field) for field in ("height", "width"))
    name = row.get("file_name") or PurePosixPath(text(row, "coco_url")).name
    shown = picture({"image": name}, image, "image")
    questions, pointed, answers = (listed(row, field) for field in ("questions", "answers", "text_answers"))
    if not len(questions) == len(pointed) == len(answers):
        raise RowError(
            f"has {len(questions)} questions, {len(pointed)} lists of masks and {len(answers)} answers",
            "fetch the file again or remove the record",
        )
    made = []
    for place, (question, masks, answer) in enumerate(zip(questions, pointed, answers, strict=True)):
        said = text({"text_answers": answer}, "text_answers")
        if not isinstance(masks, list) or said.count(SEGMENT) != len(masks):
            raise RowError(
                f"has {said.count(SEGMENT)} {SEGMENT} in answer {place} for "
                f"{len(masks) if isinstance(masks, list) else 'no list of'} masks",
                "fetch the file again or remove the record",
            )
        objects = tuple(_object(annotation, height, width) for annotation in masks)
        asked = question_of(text({"questions": question}, "questions"))
        made.append(Record(f"question {place}", shown, asked, {CHOSEN: said}, objects=objects))
    return made


def _object(annotation: Any, height: int, width: int) -> Object:
    if not isinstance(annotation, Mapping):
        raise RowError("has an answer that points at no annotation", "fetch the file again")
    name = annotation.get("rephrased_name") or annotation.get("category_name") or ""
    box = None
    if annotation.get("bbox") is not None:
        try:
            x, y, w, h = (float(side) for side in annotation["bbox"])
        except (TypeError, ValueError):
            raise RowError("has a 'bbox' that is no [x, y, width, height]", "correct the record") from None
        box = (x, y, x + w, y + h)
    return Object(str(name), box, _mask(annotation.get("segmentation"), height, width))


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Boolean [y x] of COCO's polygons or run lengths."""
    # Compiled; most runs read no masks.
    from pycocotools import mask as coco

    try:
        if isinstance(segmentation, list):
            runs = coco.merge(coco.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            runs = coco.frPyObjects(segmentation, height, width)
        else:
            counts = segmentation["counts"]
            runs = {**segmentation, "counts": counts.encode() if isinstance(counts, str) else counts}
        mask = coco.decode(runs).astype(bool)
    except (TypeError, KeyError, ValueError, IndexError):
        raise RowError("has a 'segmentation' that is no polygons or run lengths", "correct it") from None
    if mask.shape != (height, width):
        raise RowError(f"has a mask of {mask.shape} in an image of {(height, width)}", "correct the record")
    return mask


def _whole(row: Row, field: str) -> int:
    if not isinstance(row.get(field), int) or row[field] < 1:
        raise RowError(f"has no {field!r} in pixels", "fetch the file again or remove the record")
    return row[field]


FORMAT = Format(records, lambda row: len(listed(row, "questions")))
