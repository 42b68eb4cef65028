"""mDPO for LLaVA-1.5-7B, as LPOI compares itself with it.

Expected, Object HalBench CHAIR s/i: 30.7/16.0 (LPOI, Table 1); 4.0 hours an epoch of 5,000 pairs on an A6000.
"""

from ml_collections import ConfigDict

from configs import llava15_7b_dpo


def get_config() -> ConfigDict:
    config = llava15_7b_dpo.get_config()
    config.recipe = "mdpo"
    return config
