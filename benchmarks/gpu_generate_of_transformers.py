"""Transformers' `generate` of `gpu.py`: as it comes, and with a static cache, which it compiles for."""

import torch
import transformers

from benchmarks.decode import Transformers, make_prompts, take_turns
from benchmarks.gpu_inputs import NEW_TOKENS, Job
from benchmarks.gpu_model import abstract_model
from benchmarks.gpu_step_of_trl import random_model


def main() -> None:
    """Adds {responses: who, taken: seconds of each contestant's rounds} for both."""
    job = Job.from_command_line()
    transformers.logging.set_verbosity_error()
    model = random_model(job, "cuda" if torch.cuda.is_available() else "cpu").eval()
    prompts = make_prompts(abstract_model(job.small).config)
    for which, options in (("as it comes", {}), ("static cache", {"cache_implementation": "static"})):
        theirs = Transformers(model, prompts, **options)
        print(f"transformers, {which}:", flush=True)
        contestants = {
            "transformers": lambda theirs=theirs: theirs.generate(NEW_TOKENS),
            "transformers, first token": lambda theirs=theirs: theirs.generate(1),
        }
        job.say(responses=f"transformers, {which}", taken=take_turns(contestants, job.steps))


if __name__ == "__main__":
    main()
