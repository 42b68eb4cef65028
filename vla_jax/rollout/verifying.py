"""Which object of an image an answer rests on: a model is shown the image without it, and asked.

A list of views teaches something only where the last of them has made a right answer wrong. Where a model
that sees nothing more of the object still answers rightly, the answer rests on something else, or can be
guessed, and the next object is tried.

Source: LPOI, section 3.1 and Algorithm 1, lines 5 to 12.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from vla_jax.data import Record
from vla_jax.data.key_object import candidates, place_of
from vla_jax.data.schema import CHOSEN

_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class Verdict(NamedTuple):
    """What came of a record.

    Attributes:
      place: of the first object, among the record's, without which the model no longer answers rightly; None
        where there is none.
      asked: how many objects it was asked without.
    """

    place: int | None
    asked: int


Ask = Callable[[Sequence[Record]], Sequence[str | None]]


def verify(records: Sequence[Record], ask: Ask) -> list[Verdict]:
    """Asks about every record without one object after the other, until the answer is no longer right.

    Objects are tried in the order of `data.key_object.candidates`.

    Args:
      records: with a chosen answer.
      ask: what the model answers to each record's question under an image without its key object; None where
        nothing of it is in the image that the model sees.
    """
    orders = [candidates(record, record.responses[CHOSEN]) if record.images else () for record in records]
    verdicts = [Verdict(None, 0)] * len(records)
    for turn in range(max(map(len, orders), default=0)):
        pending = [i for i, order in enumerate(orders) if verdicts[i].place is None and turn < len(order)]
        if not pending:
            break
        without = [replace(records[i], key_object=orders[i][turn]) for i in pending]
        for i, record, reply in zip(pending, without, ask(without), strict=True):
            if reply is not None:
                place = None if still_right(record, reply) else record.key_object
                verdicts[i] = Verdict(place, verdicts[i].asked + 1)
    return verdicts


def still_right(record: Record, reply: str) -> bool:
    """Whether a reply says what the chosen answer says, as far as words tell.

    Where the answer begins with yes or no, the reply must too. Where it names the record's key object, the
    reply must name that; where it names only others of the record's objects, all of these. Any other answer
    must be repeated, word for word.
    """
    answer = record.responses[CHOSEN]
    if said := _YES_OR_NO.match(answer):
        replied = _YES_OR_NO.match(reply)
        return replied is not None and replied[1].lower() == said[1].lower()
    named = [known.name for known in record.objects if place_of(known.name, answer) is not None]
    if record.key_object is not None and record.objects[record.key_object].name in named:
        named = [record.objects[record.key_object].name]
    if named:
        return all(place_of(name, reply) is not None for name in named)
    return re.findall(r"\w+", reply.lower()) == re.findall(r"\w+", answer.lower())
