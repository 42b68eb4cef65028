"""What the readers of published layouts share: fields with a type, conversations, errors that say enough."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import CHOSEN, REJECTED, Picture, Record, Turn
from vla_jax.data.tokenizer import IMAGE_TOKEN

# From what a row says of an image (a path, encoded bytes, or a dict of both) to the image, not yet opened.
OpenImage = Callable[[Any], Picture]

_USER, _ASSISTANT = {"human", "user", "instruction"}, {"gpt", "assistant", "llava", "model"}


@dataclass(frozen=True)
class Format:
    """How a row of a published layout becomes records.

    Attributes:
      records: row -> its records, keyed by what sets them apart within the row ("" for an only one).
      count: row -> how many records it has, where that may be another number than 1; opens no image.
      identifier: field that must not have the same value twice; "" where the published sets repeat theirs.
      keyed: the records bring keys that are theirs alone in the whole set.
    """

    records: Callable[[Row, OpenImage], Sequence[Record]]
    count: Callable[[Row], int] | None = None
    identifier: str = ""
    keyed: bool = False


def text(row: Row, field: str) -> str:
    """A field that holds a text which says something.

    Raises:
      RowError: where it does not.
    """
    if field not in row:
        raise RowError(f"has no field {field!r}", f"add {field!r} or remove the record")
    if not isinstance(row[field], str):
        raise RowError(f"has a {field!r} that is no text", "write it as a string")
    if not row[field].strip():
        raise RowError(f"has an empty {field!r}", "give it a text or remove the record")
    return row[field]


def listed(row: Row, field: str) -> list[Any]:
    """A field that holds a list.

    Raises:
      RowError: where it does not.
    """
    if not isinstance(row.get(field), list):
        raise RowError(f"has no list {field!r}", f"add {field!r} or remove the record")
    return row[field]


def json_text(row: Row, field: str) -> Row:
    """A field that holds an object, written as JSON inside a string.

    Raises:
      RowError: where it does not.
    """
    try:
        value = json.loads(text(row, field))
    except json.JSONDecodeError as error:
        raise RowError(
            f"has a {field!r} that is not valid JSON ({error.msg} at column {error.colno})",
            "fetch the file again or remove the record",
        ) from None
    if not isinstance(value, Mapping):
        raise RowError(f"has a {field!r} that is no JSON object", "fetch the file again or remove the record")
    return value


def question_of(words: str) -> str:
    """A user's words without the image's placeholder.

    Raises:
      RowError: where nothing is left.
    """
    question = words.replace(IMAGE_TOKEN, "").strip()
    if not question:
        raise RowError("asks nothing", "give it a question or remove the record")
    return question


def pair(row: Row) -> dict[str, str]:
    """The chosen and the rejected answer.

    Raises:
      RowError: where one of them is missing or says nothing.
    """
    return {role: text(row, role) for role in (CHOSEN, REJECTED)}


class Message(NamedTuple):
    """What one side said; `role` is user or assistant."""

    role: str
    words: str


def conversation(row: Row, field: str) -> list[Message]:
    """LLaVA's list of `{from, value}`, nested once more in some sets.

    Raises:
      RowError: where it is none.
    """
    turns = listed(row, field)
    if len(turns) == 1 and isinstance(turns[0], list):
        turns = turns[0]
    messages = []
    for turn in turns:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            raise RowError(
                f"has {field!r} with a turn that is no {{from, value}}", "correct or remove the record"
            )
        speaker = str(turn.get("from", "")).lower()
        if speaker not in _USER | _ASSISTANT:
            raise RowError(f"has {field!r} with a turn from {speaker!r}", "write human or gpt")
        messages.append(Message("user" if speaker in _USER else "assistant", turn["value"]))
    return messages


def turns_of(messages: Sequence[Message]) -> tuple[tuple[Turn, ...], str]:
    """Answered turns, and the question that stands last, "" where the last one is answered.

    Raises:
      RowError: where user and assistant do not alternate, or the placeholder of an image stands in a later
        turn than the first.
    """
    roles = [message.role for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2) or not roles:
        raise RowError(
            f"has a conversation of {' '.join(roles) or 'nothing'}", "let user and assistant take turns"
        )
    if any(IMAGE_TOKEN in message.words for message in messages[1:]):
        raise RowError(f"has {IMAGE_TOKEN} after the first question", "put the images before the first one")
    words = [question_of(message.words) for message in messages[::2]]
    answers = [message.words.strip() for message in messages[1::2]]
    if not all(answers):
        raise RowError("has an empty answer in its conversation", "give it a text or remove the record")
    turns = tuple(Turn(*turn) for turn in zip(words, answers, strict=False))
    return turns, words[-1] if len(words) > len(answers) else ""


_VICUNA = re.compile(r"\b(USER|ASSISTANT):")


def untemplated(prompt: str) -> tuple[tuple[Turn, ...], str]:
    """History and question of a prompt that was laid out as LLaVA-1.5 does it, or of a bare one.

    The prompt is laid out again by the template of the model in training, which may be another one.

    Raises:
      RowError: where it asks nothing.
    """
    pieces = _VICUNA.split(prompt)
    if len(pieces) == 1:
        return (), question_of(prompt)
    messages = [
        Message(speaker.lower(), words.replace("</s>", "").strip())
        for speaker, words in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    if messages[-1] == Message("assistant", ""):
        messages.pop()
    history, question = turns_of(messages)
    if not question:
        raise RowError("has a prompt that is answered already", "end it with the user's question")
    return history, question


def pictures(
    row: Row, image: OpenImage, fields: Sequence[str], words: str | None = None
) -> tuple[Picture, ...]:
    """The images of a row, not yet opened; none where no field names one.

    Args:
      row: the row.
      image: opens one.
      fields: where the image, or a list of them, may stand; the first that holds something counts.
      words: the user's first words; where placeholders stand in them, there must be one an image.

    Raises:
      RowError: where an image cannot be one, or placeholders and images differ in number.
    """
    there = (row[field] for field in fields if row.get(field) is not None)
    held: Any = next((value for value in there if isinstance(value, np.ndarray) or value), [])
    images = tuple(image(each) for each in (held if isinstance(held, list) else [held]))
    written = words.count(IMAGE_TOKEN) if words else 0
    if written and written != len(images):
        raise RowError(
            f"has {written} {IMAGE_TOKEN} placeholders for {len(images)} images",
            f"write {IMAGE_TOKEN} once an image, or leave it out",
        )
    return images


def picture(row: Row, image: OpenImage, *fields: str) -> tuple[Picture]:
    """The one image of a row.

    Raises:
      RowError: where there is none, or several.
    """
    images = pictures(row, image, fields)
    if len(images) != 1:
        raise RowError(f"names {len(images)} images", f"give it one, in {fields[0]!r}")
    return (images[0],)
