"""FiSAO for LLaVA-1.5-7B with the paper's hyper-parameters (section 4.1, Table 7).

    python -m vla_jax.train --config=configs/llava15_7b_fisao.py --workdir=DIR \\
        --config.data.path=llava_instruct_150k.json --config.data.images=coco/train2014

Its verifier is the model's own tower with its text half: openai/clip-vit-large-patch14-336 as a folder.
8,000 records of LLaVA-Instruct-150K (the paper's are the first, these are drawn by the seed), one epoch, four
epochs of updates a sample; the batch is not in the paper. LLaVA-Instruct names no objects, so the thresholds
come from the scores alone; with records that name theirs set options.fisao.baselines=labels, as the paper
has it. Expected: CHAIR s/i 54.3/11.3 -> 39.9/9.9, POPE 85.9 -> 85.7, about six hours on four A100; seconds a
sample: 2.63 to answer, 1.17 for rewards and updates (Tables 2, 7 and 11).
"""

from ml_collections import ConfigDict

from configs import llava15_7b_dpo


def get_config() -> ConfigDict:
    config = llava15_7b_dpo.get_config()
    config.recipe = "fisao"
    config.options.fisao.baselines = "scores"
    config.verifier.model = "models/clip-vit-large-patch14-336"
    config.data.source = "llava_instruct"
    config.data.limit = 8000
    config.lora.rank = 128
    config.lora.alpha = 256.0
    config.train.steps = 250
    config.train.batch_size = 32
    config.optimizer.learning_rate = 5e-7
    return config
