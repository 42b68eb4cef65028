"""SLiC on the built-in world, from the supervised small LLaVA."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "slic"
    return config
