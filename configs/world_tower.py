"""A vision tower that has learnt to see the built-in world, in CLIP's place: what `world_sft` starts from."""

from ml_collections import ConfigDict

from vla_jax.training.configuration import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.recipe = "image_words"
    config.data.source = "world_tags"
    config.data.max_completion_length = 24
    config.train.steps = 500
    config.train.batch_size = 32
    config.train.microbatch_size = 8
    config.optimizer.name = "muon"
    config.optimizer.matrix_learning_rate = 6e-3
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_ratio = 0.1
    config.optimizer.beta2 = 0.99
    config.checkpoint.every = 200
    config.evaluation.scenes = 0
    return config
