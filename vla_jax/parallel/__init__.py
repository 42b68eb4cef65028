"""The device mesh and where each array lives on it, in one process or several.

Parameters name their axes logically in the models' tables; one short table, the configuration's `sharding`,
maps logical to mesh axes.
"""

from vla_jax.parallel.mesh import (
    RULES,
    batch_sharding,
    check_rules,
    make_mesh,
    parameter_shardings,
    replicated,
    rows_apart,
)
from vla_jax.parallel.placing import check_rows, gather, loading, local_rows, on_mesh, place, place_batch
from vla_jax.parallel.processes import all_agree, connect, end_alone, from_first, is_first, wait_for_all

__all__ = [
    "RULES",
    "all_agree",
    "batch_sharding",
    "check_rows",
    "check_rules",
    "connect",
    "end_alone",
    "from_first",
    "gather",
    "is_first",
    "loading",
    "local_rows",
    "make_mesh",
    "on_mesh",
    "parameter_shardings",
    "place",
    "place_batch",
    "replicated",
    "rows_apart",
    "wait_for_all",
]
