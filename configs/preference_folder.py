"""Preference tuning on a folder of your own: a JSON-lines file with images beside it.

    python -m vla_jax.train --config=configs/preference_folder.py --config.data.path=FILE --workdir=DIR

`--config.recipe=dpo` (or mdpo) trains another method. `--config.base.model=DIR --config.base.config=` starts
from a model of yours; by default a small one is first supervised on the chosen answers. Where records name
their `objects`, CHAIR is measured on the same images before and after.
"""

from ml_collections import ConfigDict

from vla_jax.training.configuration import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.recipe = "lpoi"
    config.base.config = "configs/folder_sft.py"
    config.base.inherit = ("seed", "model", "world", "data")
    config.data.source = "preference_folder"
    config.data.max_prompt_length = 128
    config.data.max_completion_length = 96
    config.lora.rank = 8
    config.lora.alpha = 8.0
    config.train.steps = 30
    config.train.batch_size = 8
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_ratio = 0.1
    config.checkpoint.every = 10
    return config
