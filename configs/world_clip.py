"""A text half for the small LLaVA's own vision tower, learnt from tags: the verifier of `world_fisao`."""

from ml_collections import ConfigDict

from vla_jax.training.contrastive import default_contrastive_config


def get_config() -> ConfigDict:
    config = default_contrastive_config()
    config.steps = 800
    config.batch_size = 48
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.matrix_learning_rate = 4e-3
    config.optimizer.beta2 = 0.99
    return config
