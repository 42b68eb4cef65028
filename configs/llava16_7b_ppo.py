"""PPO for LLaVA-1.6-7B as in the alignment study (5.5, Appendix A): 32 prompts a step, a constant rate.

Train the reward model first, with configs/llava16_7b_reward_model.py on VLFeedback, into
models/llava-1.6-7b-reward; the value head begins as its head. Prompts are POVID's, 17,000, gone through three
times. The price of the divergence and the four passes over a step's answers are TRL's: the study gives none.
Expected, POPE: base 86.40, PPO 87.54.
"""

from ml_collections import ConfigDict

from configs import llava16_7b_rloo


def get_config() -> ConfigDict:
    config = llava16_7b_rloo.get_config()
    config.recipe = "ppo"
    config.train.steps = 1594
    config.train.batch_size = 32
    config.optimizer.learning_rate = 1.41e-5
    return config
