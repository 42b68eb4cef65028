"""MUSE: questions about several objects of an image, answered in text with `{seg}` at each object's mask.

Source: Ren et al. 2023, PixelLM; `muse_train.json`, `muse_val.json`, `muse_test_less.json`,
`muse_test_many.json`. Masks are polygons or run lengths, as COCO writes them.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool

from vla_jax.data.formats.fields import Format, OpenImage, listed, picture, question_of, text
from vla_jax.data.formats.masks import from_polygons, from_runs
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import CHOSEN, Object, Picture, Record

# Stands in a response where an object's mask belongs, in the order of the record's objects.
SEGMENT = "{seg}"


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record a question; its objects are those that the answer points at, in its order."""
    name = row.get("file_name") or PurePosixPath(text(row, "coco_url")).name
    shown = picture({"image": name}, image, "image")
    _check_size(row, shown[0])
    height, width = shown[0].size
    questions, pointed, answers = _questions(row), listed(row, "answers"), listed(row, "text_answers")
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
        except (TypeError, ValueError, OverflowError):
            raise RowError("has a 'bbox' that is no [x, y, width, height]", "correct the record") from None
        box = (x, y, x + w, y + h)
    return Object(str(name), box, _mask(annotation.get("segmentation"), height, width))


def _mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """A mask of COCO's polygons or run lengths."""
    if isinstance(segmentation, list):
        return from_polygons(segmentation, height, width)
    if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= segmentation.keys():
        raise RowError("has a 'segmentation' that is no polygons or run lengths", "correct it")
    if segmentation["size"] != [height, width]:
        raise RowError(
            f"has a mask of [height, width] {segmentation['size']!r:.80} in an image of {[height, width]}",
            "correct the record",
        )
    return from_runs(segmentation["counts"], height, width)


def _check_size(row: Row, shown: Picture) -> None:
    """Refuses a row that says another size than its image has: masks are painted at this one."""
    said = tuple(row.get(field) for field in ("height", "width"))
    if said != shown.size:
        raise RowError(
            f"says that its image is {said[0]!r:.20} x {said[1]!r:.20} pixels, and it is "
            f"{shown.size[0]} x {shown.size[1]} (height x width)",
            "fetch the image again, or correct the record",
        )


def _questions(row: Row) -> list[Any]:
    questions = listed(row, "questions")
    if not questions:
        raise RowError("has no question in 'questions'", "add one or remove the record")
    return questions


FORMAT = Format(records, lambda row: len(_questions(row)))
