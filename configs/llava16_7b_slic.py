"""SLiC for LLaVA-1.6-7B as in the alignment study, which searches beta in .02-.2."""

from ml_collections import ConfigDict

from configs import llava16_7b_dpo


def get_config() -> ConfigDict:
    config = llava16_7b_dpo.get_config()
    config.recipe = "slic"
    config.options.slic.beta = 0.1
    return config
