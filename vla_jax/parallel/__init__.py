"""The device mesh and where each array lives on it.

Parameters name their axes logically in the models' tables; one short table here maps logical to mesh axes.
"""

from vla_jax.parallel.mesh import batch_sharding, make_mesh, on_mesh, parameter_shardings, replicated

__all__ = ["batch_sharding", "make_mesh", "on_mesh", "parameter_shardings", "replicated"]
