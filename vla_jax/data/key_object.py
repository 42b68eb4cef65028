"""Which object of an image an answer is about."""

import re
from typing import NamedTuple

import numpy as np

from vla_jax.data.schema import Box, Object, Record

GIVEN = "the object that the data says"
NAMED = "box of an object the texts name"
UNNAMED = "first box given"
DENIED = "nothing, where the answer only says no"
CENTRAL = "central object prior"
NO_IMAGE = "nothing, where there is no image"
CUT_OFF = "nothing, where the crop cuts the object off"

# Photographers put the subject in the middle: the central half of each side.
_CENTRE = 0.25
_EMPTY: Box = (0.0, 0.0, 0.0, 0.0)
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
    """The object that the record says, or else the first of `candidates`, as far as its box is known.

    Without any box it is the centre of the image. An object that has a mask and no box lies in the box around
    its mask. Where `candidates` denies all there is, the box is empty, and all its views are the image.
    """
    if not record.images:
        return KeyObject(_EMPTY, NO_IMAGE)
    if record.key_object is not None:
        return of_object(record.objects[record.key_object], GIVEN)
    found = candidates(record, answer)
    if found:
        known = record.objects[found[0]]
        named = any(place_of(known.name, text) is not None for text in (answer, record.question))
        return of_object(known, NAMED if named else UNNAMED)
    if _DENIAL.match(answer):
        return KeyObject(_EMPTY, DENIED)
    height, width = record.images[0].size
    x, y = width * _CENTRE, height * _CENTRE
    return KeyObject((x, y, width - x, height - y), CENTRAL)


def candidates(record: Record, answer: str) -> tuple[int, ...]:
    """Places of the objects with a box that an answer may be about, the likeliest first.

    First those that the answer's first sentence names, then the question's, then those of the rest of the
    answer, each in the order of their names there; then those that are not named, as they are given.

    But an answer that begins with "No" and names nothing boxed is about something absent, and has none:
    masking what happens to be there would teach that "No" is wrong.

    Source: LPOI, section 3.1 (order of the search); the denial is ours.
    """
    boxed = {i: known for i, known in enumerate(record.objects) if _box_of(known) is not None}
    first, _, rest = answer.partition(".")
    ordered: list[int] = []
    for text in (first, record.question, rest):
        places = {i: place for i, o in boxed.items() if (place := place_of(o.name, text)) is not None}
        ordered += sorted(places, key=lambda i: (places[i], i))
    if not ordered and _DENIAL.match(answer):
        return ()
    return tuple(dict.fromkeys([*ordered, *boxed]))


def of_object(known: Object, origin: str) -> KeyObject:
    """A known object as the key object; one without box or mask covers nothing."""
    return KeyObject(_box_of(known) or _EMPTY, origin, known.mask)


def place_of(name: str, text: str) -> int | None:
    """Where a text first names something, in the singular or plural; None where it does not."""
    if not name:
        return None
    match = re.search(rf"\b{re.escape(name)}(?:s|es)?\b", text, re.IGNORECASE)
    return match.start() if match else None


def has_area(box: Box) -> bool:
    """Whether anything lies in it."""
    x0, y0, x1, y1 = box
    return x1 > x0 and y1 > y0


def _box_of(known: Object) -> Box | None:
    """Its box, or the box around its mask."""
    if known.box is not None or known.mask is None or not known.mask.any():
        return known.box
    (x0, x1), (y0, y1) = (np.flatnonzero(known.mask.any(axis))[[0, -1]].tolist() for axis in (0, 1))
    return float(x0), float(y0), float(x1 + 1), float(y1 + 1)
