"""A small LLaVA, supervised on the built-in world's biased text: what the alignment configs start from."""

from ml_collections import ConfigDict

from vla_jax.training.configuration import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.recipe = "sft"
    config.base.config = "configs/world_tower.py"
    config.data.source = "world_supervised"
    config.train.steps = 3600
    config.train.batch_size = 16
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.beta2 = 0.99
    config.optimizer.weight_decay = 0.01
    config.checkpoint.every = 600
    config.evaluation.scenes = 0
    return config
