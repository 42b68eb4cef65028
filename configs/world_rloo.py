"""RLOO on the built-in world: four answers to each of 16 prompts, scored by the world's reward model."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "rloo"
    config.rewards.config = "configs/world_reward_model.py"
    config.options.rloo.beta = 0.05
    config.train.steps = 150
    config.train.batch_size = 16
    config.train.microbatch_size = 4
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
    return config
