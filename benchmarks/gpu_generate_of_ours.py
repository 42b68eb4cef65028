"""Our sampler of `gpu.py`: responses of a bfloat16 model with random weights, as `decode.py` asks for them.

Layers are a loop in prefill; in decoding they are a loop, then written out.
"""

import jax
import jax.numpy as jnp

from benchmarks.decode import Ours, make_prompts, parts_of, take_turns
from benchmarks.gpu_inputs import NEW_TOKENS, Job
from benchmarks.gpu_model import abstract_model, random_params
from vla_jax.models.compute import Compute


def main() -> None:
    """Adds {responses: who, taken: seconds of each contestant's rounds} for both."""
    job = Job.from_command_line()
    config = abstract_model(job.small).config
    params = jax.block_until_ready(random_params(config, jnp.bfloat16))
    prompts = make_prompts(config)
    for which, written_out in (("loop", False), ("written out", True)):
        ours = Ours(params, config, prompts, Compute(unroll_decoding=written_out))
        contestants = parts_of(ours.contestants(NEW_TOKENS), ("generate", "responses"))
        print(f"ours, {which}:", flush=True)
        job.say(responses=f"ours, {which}", taken=take_turns(contestants, job.steps))


if __name__ == "__main__":
    main()
