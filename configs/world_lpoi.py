"""LPOI on the built-in world, from the supervised small LLaVA."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "lpoi"
    config.options.lpoi.num_views = 3  # the shortest list of the paper: the whole run in two minutes
    # At weight 1 the list takes over Adam's steps, by an easy answer: "say less of a blackened image".
    config.options.lpoi.list_weight = 0.5
    return config
