"""mDPO for LLaVA-1.5-13B: as for 7B, on more devices.

python -m vla_jax.convert import --from=llava-hf/llava-1.5-13b-hf --to=models/llava-1.5-13b --dtype=bfloat16
"""

from ml_collections import ConfigDict

from configs import llava15_7b_mdpo


def get_config() -> ConfigDict:
    config = llava15_7b_mdpo.get_config()
    config.base.model = "models/llava-1.5-13b"
    return config
