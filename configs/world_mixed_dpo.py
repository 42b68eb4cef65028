"""Mixed DPO on the built-in world: half of the pairs are the data's, half are sampled and compared."""

from ml_collections import ConfigDict

from configs import world_online_dpo


def get_config() -> ConfigDict:
    config = world_online_dpo.get_config()
    config.recipe = "mixed_dpo"
    return config
