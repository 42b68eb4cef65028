"""Mixed DPO for LLaVA-1.6-7B as in the alignment study (5.6, Eq. 4): the data's pair or a sampled one.

A coin decides, p = 0.5; the judge is that of configs/llava16_7b_online_dpo.py. Expected with POVID, POPE:
base 86.40, DPO 88.09, mixed 88.03, and recall on COCO 68.13, 73.48, 74.53.
"""

from ml_collections import ConfigDict

from configs import llava16_7b_online_dpo


def get_config() -> ConfigDict:
    config = llava16_7b_online_dpo.get_config()
    config.recipe = "mixed_dpo"
    return config
