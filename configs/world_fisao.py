"""FiSAO on the built-in world, from the supervised small LLaVA, verified by its own vision tower."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "fisao"
    config.verifier.config = "configs/world_clip.py"
    # The paper's margin suits CLIP's scores. This verifier's means lie 19 apart; every word counts here.
    config.options.fisao.margin = 0.0
    config.train.steps = 30
    config.optimizer.learning_rate = 1e-3
    config.checkpoint.every = 10
    return config
