"""RLOO for LLaVA-1.6-7B as in the alignment study (5.5, Appendix A): four answers to each of 256 prompts.

Train the reward model first, with configs/llava16_7b_reward_model.py on VLFeedback, into
models/llava-1.6-7b-reward: with one trained on POVID the study's policies collapse, which `alarms` is for.
Prompts are POVID's, 17,000, gone through twice. Constant learning rate and one update a step are ours.
Expected, POPE: base 86.40, RLOO 87.17.
"""

from ml_collections import ConfigDict

from configs import llava16_7b_dpo


def get_config() -> ConfigDict:
    config = llava16_7b_dpo.get_config()
    config.recipe = "rloo"
    config.rewards.model = "models/llava-1.6-7b-reward"
    config.lora.modules_to_save = ""  # the base model's parameters stay as they are
    config.train.steps = 133
    config.train.batch_size = 256
    config.optimizer.learning_rate = 3e-4
    config.optimizer.projector_learning_rate = 0.0
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_ratio = 0.0
    config.optimizer.max_grad_norm = 1.0
    return config
