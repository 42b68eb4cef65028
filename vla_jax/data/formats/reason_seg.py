"""ReasonSeg: an image and a JSON file beside it, with implicit queries and the polygons they mean.

Source: Lai et al. 2023, LISA, whose reader paints shapes by descending area, leaves out the label "flag", and
paints "ignore" as neither target nor background.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from vla_jax.data.formats.fields import Format, OpenImage, listed, picture, question_of
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import Object, Record

# Names of the objects of a record: what is asked for, and pixels that count neither way.
TARGET, IGNORED = "target", "ignored"
_TARGET, _IGNORED = 1, 255


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record a query; all have the masks of the targets and of the ignored pixels."""
    shown = picture(row, image, "image")
    painted = _painted(row, *shown[0].size)
    objects = (Object(TARGET, mask=painted == _TARGET), Object(IGNORED, mask=painted == _IGNORED))
    return [
        Record(key=f"query {place}", images=shown, question=question, responses={}, objects=objects)
        for place, question in enumerate(_queries(row))
    ]


def _queries(row: Row) -> list[str]:
    queries = listed(row, "text")
    if not queries:
        raise RowError("has no query in 'text'", "add one or remove the record")
    if not all(isinstance(query, str) for query in queries):
        raise RowError("has a query that is no text", "correct or remove the record")
    return [question_of(query) for query in queries]


def _painted(row: Row, height: int, width: int) -> np.ndarray:
    """0, 1 and 255 as LISA's reader has it [y x]."""
    shapes = []
    for shape in listed(row, "shapes"):
        if not isinstance(shape, Mapping) or "label" not in shape:
            raise RowError("has a shape without 'label'", "correct or remove the record")
        if "flag" in str(shape["label"]).lower():
            continue
        try:
            points = np.array(shape["points"], float)
            finite = (
                points.ndim == 2 and points.shape[1] == 2 and len(points) > 1 and np.isfinite(points).all()
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            finite = False
        if not finite:
            raise RowError("has a shape whose points are no list of [x, y]", "correct or remove the record")
        value = _IGNORED if "ignore" in str(shape["label"]).lower() else _TARGET
        shapes.append((value, [(int(x), int(y)) for x, y in points]))
    canvas = Image.new("L", (width, height))
    for value, corners in sorted(shapes, key=lambda shape: -_area(shape[1], height, width)):
        ImageDraw.Draw(canvas).polygon(corners, fill=value, outline=value)
    return np.asarray(canvas)


def _area(corners: Sequence[tuple[int, int]], height: int, width: int) -> int:
    alone = Image.new("1", (width, height))
    ImageDraw.Draw(alone).polygon(corners, fill=1, outline=1)
    return int(np.asarray(alone).sum())


FORMAT = Format(records, lambda row: len(_queries(row)))
