"""A reward model on the built-in world, from the supervised small LLaVA."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "reward_model"
    config.evaluation.scenes = 0  # it scores answers and writes none
    return config
