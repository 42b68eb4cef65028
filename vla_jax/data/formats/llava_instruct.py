"""LLaVA-Instruct-150K and the mixture of 665,000 conversations that LLaVA-1.5 was tuned on.

Source: Liu et al. 2023, LLaVA and LLaVA-1.5; `llava_instruct_150k.json`, `llava_v1_5_mix665k.json`. Rows of
the mixture without an `image` are conversations in text. `id` repeats, so records are known by their row.
As in LLaVA's own reader an answer before the first question is left out; so is a last question that nobody
answers.
"""

from collections.abc import Sequence

from vla_jax.data.formats.fields import Format, OpenImage, conversation, pictures, turns_of
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import CHOSEN, Record


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record: the first turn, and all others as its further turns."""
    messages = conversation(row, "conversations")
    if messages and messages[0].role == "assistant":
        messages = messages[1:]
    turns, _ = turns_of(messages)
    if not turns:
        raise RowError("has a conversation without an answer", "remove the record")
    first, *further = turns
    return [
        Record(
            key="",
            images=pictures(row, image, ["image"], messages[0].words),
            question=first.question,
            responses={CHOSEN: first.answer},
            further_turns=tuple(further),
        )
    ]


FORMAT = Format(records)
