"""POVID: LLaVA-Instruct answers and the same with hallucinations written in by GPT-4V.

Source: Zhou et al. 2024, POVID; `POVID_preference_data_for_VLLMs*.json`. `image` is a path on its authors'
machine, of which only the last part counts.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from vla_jax.data.formats.fields import Format, OpenImage, conversation, pictures, text, turns_of
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import CHOSEN, REJECTED, Record, Turn


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record: the last answer of the conversation and its hallucinated twin."""
    (*history, chosen), rejected = (
        _answered(row, "conversations"),
        _answered(row, "rejected_conversations")[-1],
    )
    if replace(chosen, answer="") != replace(rejected, answer=""):
        raise RowError("has two conversations that ask different things", "correct or remove the record")
    name = PurePosixPath(text(row, "image")).name
    words = conversation(row, "conversations")[0].words
    return [
        Record(
            key="",
            images=pictures({"image": name}, image, ["image"], words),
            history=tuple(history),
            question=chosen.question,
            responses={CHOSEN: chosen.answer, REJECTED: rejected.answer},
        )
    ]


def _answered(row: Row, field: str) -> tuple[Turn, ...]:
    turns, unanswered = turns_of(conversation(row, field))
    if unanswered:
        raise RowError(f"has {field!r} whose last question is not answered", "correct or remove the record")
    return turns


FORMAT = Format(records)
