"""IPO for LLaVA-1.6-7B as in the alignment study, which searches beta in .8-1."""

from ml_collections import ConfigDict

from configs import llava16_7b_dpo


def get_config() -> ConfigDict:
    config = llava16_7b_dpo.get_config()
    config.recipe = "ipo"
    config.options.ipo.beta = 0.9
    return config
