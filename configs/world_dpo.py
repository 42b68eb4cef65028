"""DPO on the built-in world, from the supervised small LLaVA; the other methods' configs begin here."""

from ml_collections import ConfigDict

from configs import world_sft
from vla_jax.training.configuration import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.recipe = "dpo"
    config.base.config = "configs/world_sft.py"
    config.world = world_sft.get_config().world
    config.data.source = "world_preference"
    config.data.size = 20_000
    config.data.max_completion_length = 24
    config.world.preference_questions = 0.15
    config.lora.rank = 8
    config.lora.alpha = 8.0
    config.train.steps = 200
    config.train.batch_size = 32
    config.train.microbatch_size = 8
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_ratio = 0.1
    config.checkpoint.every = 50
    return config
