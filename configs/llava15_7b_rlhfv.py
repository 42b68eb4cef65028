"""RLHF-V's weighted preferences for LLaVA-1.5-7B, with its paper's beta and weight."""

from ml_collections import ConfigDict

from configs import llava15_7b_dpo


def get_config() -> ConfigDict:
    config = llava15_7b_dpo.get_config()
    config.recipe = "rlhfv"
    return config
