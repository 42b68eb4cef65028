"""A reward model from LLaVA-1.6-7B as in the alignment study: 4,000 steps of 32, warm-up 3 % and constant."""

from ml_collections import ConfigDict

from configs import llava16_7b_dpo


def get_config() -> ConfigDict:
    config = llava16_7b_dpo.get_config()
    config.recipe = "reward_model"
    config.train.steps = 4000
    config.optimizer.learning_rate = 2e-5
    config.optimizer.projector_learning_rate = 0.0
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_ratio = 0.03
    config.evaluation.scenes = 0
    return config
