"""What TRL's trainers read: `prompt`, `chosen`, `rejected` as texts or as messages, `images` or `image`.

Where there is no `prompt`, it is what the two conversations have in common, as TRL has it. A system message
is kept. Images stand before the user's first words, whatever place they have among the parts of that message.

Source: TRL's documentation, "Dataset formats and types" (standard and conversational, preference).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vla_jax.data.formats.fields import Format, Message, OpenImage, pictures, question_of, text, turns_of
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import CHOSEN, REJECTED, Record, Turn
from vla_jax.data.tokenizer import IMAGE_TOKEN


class _Prompt(NamedTuple):
    """What stands before the answers."""

    system: str
    history: tuple[Turn, ...]
    question: str
    words: str


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record."""
    prompt, answers = _read(row)
    return [
        Record(
            key="",
            images=pictures(row, image, ["images", "image"], prompt.words),
            system=prompt.system,
            history=prompt.history,
            question=prompt.question,
            responses=answers,
        )
    ]


def _read(row: Row) -> tuple[_Prompt, dict[str, str]]:
    if row.get("prompt") is not None and not isinstance(row["prompt"], list):
        words = text(row, "prompt")
        return _Prompt("", (), question_of(words), words), {
            role: _answer(row, role) for role in (CHOSEN, REJECTED)
        }
    chosen, rejected = _messages(row, CHOSEN), _messages(row, REJECTED)
    if row.get("prompt") is None:
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    else:
        prompt = _messages(row, "prompt")
    return _conversational(prompt), {CHOSEN: _only(chosen, CHOSEN), REJECTED: _only(rejected, REJECTED)}


def _conversational(messages: Sequence[Message]) -> _Prompt:
    system = ""
    if messages and messages[0].role == "system":
        system, messages = messages[0].words, messages[1:]
    history, question = turns_of(messages)
    if not question:
        raise RowError("has a 'prompt' that is answered already", "end it with the user's message")
    return _Prompt(system, history, question, messages[0].words)


def _answer(row: Row, role: str) -> str:
    """An answer beside a prompt that is text; some sets write it as messages all the same."""
    return _only(_messages(row, role), role) if isinstance(row.get(role), list) else text(row, role)


def _only(messages: Sequence[Message], role: str) -> str:
    if [message.role for message in messages] != ["assistant"]:
        raise RowError(
            f"has a {role!r} that is not one message of the assistant", "correct or remove the record"
        )
    return text({role: messages[0].words}, role)


def _messages(row: Row, field: str) -> list[Message]:
    value = row.get(field)
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise RowError(f"has a {field!r} that is neither text nor messages", "write one of them")
    return [Message(str(each.get("role")), _words(each.get("content"), field)) for each in value]


def _words(content: Any, field: str) -> str:
    """A message's text, with a placeholder for each image among its parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise RowError(f"has a {field!r} with a message without 'content'", "correct or remove the record")
    said = []
    for part in content:
        if part.get("type") == "image":
            said.append(f"{IMAGE_TOKEN}\n")
        elif part.get("type") == "text" and isinstance(part.get("text"), str):
            said.append(part["text"])
        else:
            raise RowError(
                f"has a {field!r} with a part of type {part.get('type')!r}", "write text and image parts only"
            )
    return "".join(said)


FORMAT = Format(records, identifier="id")
