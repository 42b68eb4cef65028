"""Which words of an answer are true of the image, by the same reading that CHAIR counts with."""

from collections.abc import Collection
from typing import Literal, NamedTuple

from vla_jax.evaluation import Vocabulary


class Segment(NamedTuple):
    """A stretch of an answer; the segments of an answer, joined, are the answer.

    Attributes:
      text: the characters as the model wrote them, not escaped.
      truth: "present" or "absent" for the mention of an object, "unmarked" for all that lies between.
    """

    text: str
    truth: Literal["present", "absent", "unmarked"]


def mark(text: str, objects: Collection[str], vocabulary: Vocabulary) -> tuple[Segment, ...]:
    """Splits `text` at its mentions of objects.

    Args:
      text: a model's answer.
      objects: names of all that is in the image.
      vocabulary: finds the mentions.

    Raises:
      ValueError: one of `objects` is not in the vocabulary.
    """
    present = {vocabulary.canonical(name) for name in objects}
    segments, end = [], 0
    for mention in vocabulary.mentions(text):
        segments.append(Segment(text[end : mention.start], "unmarked"))
        segments.append(
            Segment(text[mention.start : mention.end], "present" if mention.name in present else "absent")
        )
        end = mention.end
    segments.append(Segment(text[end:], "unmarked"))
    return tuple(segment for segment in segments if segment.text)
