"""RLAIF-V: answers of models, ranked by other models claim by claim.

Source: Yu et al. 2024, RLAIF-V; parquet shards.
"""

from collections.abc import Sequence

from vla_jax.data.formats.fields import Format, OpenImage, pair, picture, question_of, text
from vla_jax.data.rows import Row
from vla_jax.data.schema import Record


def records(row: Row, image: OpenImage) -> Sequence[Record]:
    """One record."""
    return [
        Record(
            key="",
            images=picture(row, image, "image", "image_path"),
            question=question_of(text(row, "question")),
            responses=pair(row),
        )
    ]


FORMAT = Format(records)
