"""Online DPO for LLaVA-1.6-7B as in the alignment study (5.6): the policy's own answers, compared by a judge.

The study's judge is LLaVA-1.6-34B with the prompt of its Table 14. Serve it, or another model, with an
OpenAI-compatible server at `rewards.judge.url`, or name a checkpoint of ours: docs/judges.md. Learning rates
and beta are searched as in configs/llava16_7b_dpo.py. Expected with POVID's prompts, POPE: base 86.40, with
the 34B judge 86.49, with the 7B model itself as the judge 86.54.
"""

from ml_collections import ConfigDict

from configs import llava16_7b_dpo


def get_config() -> ConfigDict:
    config = llava16_7b_dpo.get_config()
    config.recipe = "online_dpo"
    config.rewards.judge.kind = "server"
    config.rewards.judge.model = "llava-hf/llava-v1.6-34b-hf"
    config.rewards.judge.url = "http://localhost:8000/v1"
    return config
