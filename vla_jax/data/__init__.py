"""Records, where they come from, and how they become batches. Nothing of ours in here imports jax.

`schema.py` is the one typed record; a source (`world/`, or `published.py`: the rows of a file as one of
`formats/` reads them) gives random access to them, images still encoded; `encoding.py` turns a record into
token ids, fitted images and the box of its key object; `plan.py` fixes which records make which batch;
`loading.py` reads along the plan with grain and pads by `batches.py`.
"""

from vla_jax.data.batches import Batch
from vla_jax.data.encoding import Encoder
from vla_jax.data.loading import batches
from vla_jax.data.plan import BatchPlan
from vla_jax.data.record_report import RecordReport
from vla_jax.data.schema import CHOSEN, REJECTED, DataError, Object, Record, Source, Turn

__all__ = [
    "CHOSEN",
    "REJECTED",
    "Batch",
    "BatchPlan",
    "DataError",
    "Encoder",
    "Object",
    "Record",
    "RecordReport",
    "Source",
    "Turn",
    "batches",
]
