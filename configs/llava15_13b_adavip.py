"""AdaViP for LLaVA-1.5-13B: as for 7B, in batches of 16, on more devices.

python -m vla_jax.convert import --from=llava-hf/llava-1.5-13b-hf --to=models/llava-1.5-13b --dtype=float32
"""

from ml_collections import ConfigDict

from configs import llava15_7b_adavip


def get_config() -> ConfigDict:
    config = llava15_7b_adavip.get_config()
    config.base.model = "models/llava-1.5-13b"
    config.train.batch_size = 16
    return config
