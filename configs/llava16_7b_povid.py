"""POVID for LLaVA-1.6-7B as in the alignment study: 500 of 1,000 steps of noise, on every tile."""

from ml_collections import ConfigDict

from configs import llava16_7b_dpo


def get_config() -> ConfigDict:
    config = llava16_7b_dpo.get_config()
    config.recipe = "povid"
    return config
