"""LPOI for LLaVA-1.5-7B with the paper's hyper-parameters (section 4.1).

Give the data boxes: without them the key object is taken to be in the middle of the image. Expected, Object
HalBench CHAIR s/i: 24.3/14.6 (Table 1); 6.2 hours an epoch of 5,000 pairs with lists of 5 on an A6000.

That figure is with verified key objects (without: appendix E). `python -m vla_jax.construct key_objects`
packs a set of them, `--config.data.source=packed --config.data.path=SET` trains on it (docs/data.md).
"""

from ml_collections import ConfigDict

from configs import llava15_7b_dpo


def get_config() -> ConfigDict:
    config = llava15_7b_dpo.get_config()
    config.recipe = "lpoi"
    config.options.lpoi.num_views = 5
    config.train.microbatch_size = 4
    return config
