"""Online DPO on the built-in world: the world's reward model compares two answers to each of 32 prompts."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "online_dpo"
    config.rewards.config = "configs/world_reward_model.py"
    config.rewards.judge.kind = "reward_model"
    config.optimizer.learning_rate = 1e-3
    return config
