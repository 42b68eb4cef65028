"""Online BDHS for LLaVA-1.6-7B as in the alignment study (3.4): corrupted answers by the policy of each step.

Of the image's tokens 99 % are hidden; of up to five tries the first is taken whose similarity to the chosen
answer is below 0.97. `rewards.similarity` names a sentence-transformers folder (the study's is
all-mpnet-base-v2). Learning rates and beta are searched as in configs/llava16_7b_dpo.py. Expected on POPE
with 5,000 of POVID's records: base 86.40; the corrupted pair alone (`data_pair=False`) 88.75 offline and
88.83 online; averaged with POVID's own pair, as here, 88.56 and 88.38.
"""

from ml_collections import ConfigDict

from configs import llava16_7b_dpo


def get_config() -> ConfigDict:
    config = llava16_7b_dpo.get_config()
    config.recipe = "bdhs"
    config.options.bdhs.online = True
    return config
