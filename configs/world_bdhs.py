"""BDHS on the built-in world, with corrupted answers made beforehand by the supervised small LLaVA.

python -m vla_jax.construct bdhs --config=configs/world_bdhs_online.py --to=runs/world_bdhs_set
python -m vla_jax.train --config=configs/world_bdhs.py --workdir=runs/world_bdhs
"""

from ml_collections import ConfigDict

from configs import world_bdhs_online


def get_config() -> ConfigDict:
    config = world_bdhs_online.get_config()
    config.options.bdhs.online = False
    config.data.source = "packed"
    config.data.path = "runs/world_bdhs_set"
    config.data.size = 100_000  # of the world, which is not read here
    config.evaluation.world = True
    return config
