"""Best of n on the built-in world: DPO on the best and the worst of four answers, by a reward model."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "best_of_n"
    config.rewards.config = "configs/world_reward_model.py"
    config.train.steps = 150
    config.train.batch_size = 16
    config.optimizer.learning_rate = 3e-4
    return config
