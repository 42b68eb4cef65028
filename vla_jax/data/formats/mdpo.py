"""The pairs of mDPO and of LPOI: `img_path`, a prompt that is laid out already, two answers.

Source: Wang et al. 2024, mDPO; LPOI (2025).
"""

from collections.abc import Sequence

from vla_jax.data.formats.fields import Format, OpenImage, pair, pictures, text, untemplated
from vla_jax.data.rows import Row
from vla_jax.data.schema import Record


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record."""
    prompt = text(row, "prompt")
    history, question = untemplated(prompt)
    return [
        Record(
            key="",
            images=pictures(row, image, ["img_path", "image"], prompt),
            history=history,
            question=question,
            responses=pair(row),
        )
    ]


FORMAT = Format(records)
