r"""DPO for LLaVA-1.6-7B (NeXT, Vicuna) as in the alignment study; its other configs begin here.

    python -m vla_jax.convert import --from=llava-hf/llava-v1.6-vicuna-7b-hf --to=models/llava-1.6-7b \
        --dtype=bfloat16
    python -m vla_jax.train --config=configs/llava16_7b_dpo.py --config.data.path=FILE --workdir=DIR

LoRA of rank 128 on the language model, the projector trained along at its own learning rate. The study
searches beta in .05-.5 and learning rates in 1e-7-5e-6 (adapter) and 2e-7-2e-5 (projector); batch size and
steps are ours. Expected, POPE: base 86.40, DPO 88.09.
"""

from ml_collections import ConfigDict

from vla_jax.training.configuration import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.recipe = "dpo"
    config.base.model = "models/llava-1.6-7b"
    config.data.source = "preference_folder"
    config.data.max_prompt_length = 3200  # up to 2,928 of them the image's
    config.data.max_completion_length = 512
    config.data.length_multiple = 128
    config.data.threads = 8
    config.lora.rank = 128
    config.lora.alpha = 256.0
    config.lora.modules_to_save = "^projector/"
    config.train.steps = 300
    config.train.batch_size = 32
    config.train.microbatch_size = 8
    config.optimizer.learning_rate = 5e-7
    config.optimizer.projector_learning_rate = 2e-6
    config.compute.remat = "block"
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.checkpoint.every = 50
    return config
