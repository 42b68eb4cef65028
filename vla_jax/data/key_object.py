"""Which object of an image an answer is about."""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vla_jax.data.schema import Box, Object, Record

NAMED = "box of an object the texts name"
UNNAMED = "first box given"
DENIED = "nothing, where the answer only says no"
CENTRAL = "central object prior"
NO_IMAGE = "nothing, where there is no image"
CUT_OFF = "nothing, where the crop cuts the object off"

# Photographers put the subject in the middle: the central half of each side.
_CENTRE = 0.25
_DENIAL = re.compile(r"\W*no\b", re.IGNORECASE)


class KeyObject(NamedTuple):
    """The key object, in pixels of the record's first image.

    Attributes:
      box: what it lies in.
      origin: how it was found.
      mask: boolean [y x] of its pixels; None where the data has none.
    """

    box: Box
    origin: str
    mask: np.ndarray | None = None


def key_object(record: Record, answer: str) -> KeyObject:
    """The object that the answer names first, as far as its box, or its mask, is known.

    Looked for in the answer's first sentence, then in the question, then in the rest of the answer. Without a
    name that matches, the first box given; without any box, the centre of the image. An object that has a
    mask and no box lies in the box around its mask.

    But an answer that begins with "No" and names nothing boxed is about something absent. Its box is empty,
    and all its views are the image: masking what happens to be there would teach that "No" is wrong.

    Source: LPOI, section 3.1 (order of the search); the denial is ours.
    """
    if not record.images:
        return KeyObject((0.0, 0.0, 0.0, 0.0), NO_IMAGE)
    boxed = [o for o in map(_boxed, record.objects) if o.box is not None]
    first, _, rest = answer.partition(".")
    for text in (first, record.question, rest):
        found = [(place, i) for i, o in enumerate(boxed) if (place := _place(o.name, text)) is not None]
        if found:
            return _of(boxed[min(found)[1]], NAMED)
    if _DENIAL.match(answer):
        return KeyObject((0.0, 0.0, 0.0, 0.0), DENIED)
    if boxed:
        return _of(boxed[0], UNNAMED)
    height, width = record.images[0].size
    x, y = width * _CENTRE, height * _CENTRE
    return KeyObject((x, y, width - x, height - y), CENTRAL)


def _boxed(known: Object) -> Object:
    """The object with the box around its mask, where it has no other."""
    if known.box is not None or known.mask is None or not known.mask.any():
        return known
    (x0, x1), (y0, y1) = (np.flatnonzero(known.mask.any(axis))[[0, -1]].tolist() for axis in (0, 1))
    return replace(known, box=(float(x0), float(y0), float(x1 + 1), float(y1 + 1)))


def _of(found: Object, origin: str) -> KeyObject:
    assert found.box is not None
    return KeyObject(found.box, origin, found.mask)


def has_area(box: Box) -> bool:
    """Whether anything lies in it."""
    x0, y0, x1, y1 = box
    return x1 > x0 and y1 > y0


def _place(name: str, text: str) -> int | None:
    if not name:
        return None
    match = re.search(rf"\b{re.escape(name)}(?:s|es)?\b", text, re.IGNORECASE)
    return match.start() if match else None
