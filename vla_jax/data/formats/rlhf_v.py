"""RLHF-V: answers of models and what people corrected in them.

Source: Yu et al. 2023, RLHF-V; `RLHF-V-Dataset*.parquet`, where question and answers are JSON inside the
field `text`.
"""

from collections.abc import Sequence

from vla_jax.data.formats.fields import Format, OpenImage, json_text, pair, picture, question_of, text
from vla_jax.data.rows import Row
from vla_jax.data.schema import Record


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record."""
    said = json_text(row, "text")
    return [
        Record(
            key="",
            images=picture(row, image, "image", "image_path"),
            question=question_of(text(said, "question")),
            responses=pair(said),
        )
    ]


FORMAT = Format(records)
