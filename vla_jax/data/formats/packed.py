"""Our records as `construct pack` writes them: images as they were encoded, all else as JSON.

Keys are those that the records had in the files they came from, so that random views, and whatever else is
keyed by them, stay what they were.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_jax.data.formats.fields import Format, OpenImage, json_text, text
from vla_jax.data.formats.masks import from_runs
from vla_jax.data.images import MAX_PIXELS
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import Object, Record, Turn


def row_of(record: Record) -> dict[str, Any]:
    """What `records` reads, the value of `record` still to be written as JSON."""
    return {
        "key": record.key,
        "images": [image.encoded() for image in record.images],
        "record": {
            "question": record.question,
            "responses": dict(record.responses),
            "history": [[turn.question, turn.answer] for turn in record.history],
            "system": record.system,
            "further_turns": [[turn.question, turn.answer] for turn in record.further_turns],
            "objects": [[o.name, o.box, None if o.mask is None else _runs(o.mask)] for o in record.objects],
            "key_object": record.key_object,
            "ratings": dict(record.ratings),
            "spans": {role: [list(span) for span in spans] for role, spans in record.spans.items()},
            "provenance": dict(record.provenance),
        },
    }


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record."""
    said = json_text(row, "record")
    try:
        return [
            Record(
                key=text(row, "key"),
                images=tuple(image(each) for each in row["images"]),
                question=said["question"],
                responses=said["responses"],
                history=tuple(Turn(*turn) for turn in said["history"]),
                system=said["system"],
                further_turns=tuple(Turn(*turn) for turn in said["further_turns"]),
                objects=tuple(_object(*each) for each in said["objects"]),
                key_object=_place(said),
                ratings=said["ratings"],
                spans={role: tuple((a, b) for a, b in spans) for role, spans in said["spans"].items()},
                # Sets that were packed before there was any have none.
                provenance=said.get("provenance", {}),
            )
        ]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError(f"is no packed record ({error!r})", "pack the files again") from None


def _place(said: Mapping[str, Any]) -> int | None:
    """Of the key object; sets that were packed before it was known say nothing of it."""
    place = said.get("key_object")
    if place is not None and place not in range(len(said["objects"])):
        raise RowError(f"has a key object {place!r} among {len(said['objects'])}", "pack the files again")
    return place


def _object(name: str, box: Sequence[float] | None, runs: Any) -> Object:
    return Object(name, None if box is None else (box[0], box[1], box[2], box[3]), _mask(runs))


def _runs(mask: np.ndarray) -> dict[str, Any]:
    """A mask in COCO's compressed run lengths."""
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def _mask(runs: Any) -> np.ndarray | None:
    if runs is None:
        return None
    height, width = runs["size"]
    if not 0 < height * width <= MAX_PIXELS:
        raise RowError(f"has a mask of {height} x {width} pixels", "pack the files again")
    return from_runs(runs["counts"], height, width)


FORMAT = Format(records, identifier="key", keyed=True)
