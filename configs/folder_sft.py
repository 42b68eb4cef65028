"""A small LLaVA supervised on the chosen answers of a folder: a base to try `preference_folder` on.

Far too small to describe photographs well; it is there so that the whole path runs on real files anywhere.
"""

from ml_collections import ConfigDict

from vla_jax.training.configuration import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.recipe = "sft"
    config.data.source = "preference_folder"
    config.data.max_prompt_length = 128
    config.data.max_completion_length = 96
    config.train.steps = 150
    config.train.batch_size = 8
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.checkpoint.every = 50
    config.evaluation.scenes = 0
    return config
