"""LLaVA-RLHF's human preferences: two answers of one model, and which of them people took.

Source: Sun et al. 2023, Aligning Large Multimodal Models with Factually Augmented RLHF;
`llava_7b_v1_preference.json`.
"""

from collections.abc import Mapping, Sequence

from vla_jax.data.formats.fields import Format, OpenImage, conversation, pictures, text, turns_of
from vla_jax.data.rows import Row, RowError
from vla_jax.data.schema import CHOSEN, REJECTED, Record


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record: the conversation up to the last question, and the two answers to that."""
    messages = conversation(row, "conversations")
    history, question = turns_of(messages)
    if not question:
        raise RowError("has a conversation that is answered already", "end it with the user's question")
    preferred = row.get("preference")
    if isinstance(preferred, bool) or preferred not in (1, 2):
        raise RowError(f"has a 'preference' of {preferred!r}", "write 1 or 2, or remove the record")
    return [
        Record(
            key="",
            images=pictures(row, image, ["image"], messages[0].words),
            history=history,
            question=question,
            responses={
                CHOSEN: _output(row, f"output_{preferred}"),
                REJECTED: _output(row, f"output_{3 - preferred}"),
            },
        )
    ]


def _output(row: Row, field: str) -> str:
    output = row.get(field)
    if not isinstance(output, Mapping):
        raise RowError(f"has no {field!r} with a 'value'", "fetch the file again or remove the record")
    return text(output, "value")


FORMAT = Format(records)
