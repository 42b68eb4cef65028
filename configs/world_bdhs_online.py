"""BDHS on the built-in world, corrupted answers made in every step by the policy as it is then."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "bdhs"
    config.options.bdhs.online = True
    # As in world_povid: at 3e-3 captions lose their objects.
    config.optimizer.learning_rate = 3e-4
    return config
