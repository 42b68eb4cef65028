"""PPO on the built-in world, with the world's reward model and a value head that begins as its head."""

from ml_collections import ConfigDict

from configs import world_dpo


def get_config() -> ConfigDict:
    config = world_dpo.get_config()
    config.recipe = "ppo"
    config.rewards.config = "configs/world_reward_model.py"
    # RLOO's price on this reward model's scale: rewards deviate by 4 to 8. At TRL's 0.05 policies drift off.
    config.options.ppo.beta = 0.3
    config.train.steps = 150
    config.train.batch_size = 64
    config.train.microbatch_size = 16
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
    return config
