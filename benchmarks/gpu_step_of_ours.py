"""Our step of `gpu.py`: a frozen bfloat16 base with random weights and a float32 adapter."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.flops import step_flops
from benchmarks.gpu_inputs import WARM_UP, Job, Measured
from benchmarks.gpu_model import LORA, abstract_model, batches_of, random_adapter, random_params
from benchmarks.step_of_ours import make_method
from vla_jax.data import Batch
from vla_jax.data.batches import Kept
from vla_jax.models.compute import Compute
from vla_jax.models.parameters import Params
from vla_jax.recipes import Recipe, named
from vla_jax.training.step import Method, make_step

OPTIONS = {"lpoi": {"num_views": 5}}


def main() -> None:
    """Adds a `Measured` for each reference, or {out_of_memory} where the device has too little."""
    job = Job.from_command_line()
    model = abstract_model(job.small)
    recipe = named(job.recipe, OPTIONS.get(job.recipe, {}))
    compute = Compute(job.attention, job.remat, allow_unverified=True)
    method = make_method(model.config, recipe, job.settings, compute)
    batches = batches_of(model, job)
    params = jax.block_until_ready(random_params(model.config, jnp.bfloat16))
    try:
        for reference in job.references:
            shown = with_guessed_reference(batches, recipe, method) if reference == "cached" else batches
            job.say(**asdict(measure(job, method, params, shown, reference)))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        job.say(out_of_memory=True)


def measure(job: Job, method: Method, params: Params, batches: Sequence[Batch], reference: str) -> Measured:
    """Compiles the step for the batches' one shape and takes it."""
    state = method.init(random_adapter(method.model))
    started = time.perf_counter()
    step = make_step(method).lower(state, params, batches[0]).compile()
    compile_seconds = time.perf_counter() - started
    needs = step.memory_analysis()
    what = f"{job.recipe}, {reference} reference, {job.attention} attention"
    print(f"{what}: compiled in {compile_seconds:.0f} s", flush=True)
    seconds = []
    for number, batch in enumerate(batches):
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state, params, batch))
        seconds.append(time.perf_counter() - started)
        print(f"{what}: step {number}, loss {float(metrics['loss']):.4f}, {seconds[-1]:.3f} s", flush=True)
    return Measured(
        what,
        job.pairs,
        seconds[WARM_UP:],
        tokens_of(batches[0], method.recipe),
        job.pairs * flops_of_example(method, batches[0], reference == "cached"),
        compile_seconds,
        needs.argument_size_in_bytes + needs.temp_size_in_bytes,
    )


def tokens_of(batch: Batch, recipe: Recipe) -> int:
    """Of all candidates, each whole, padding left out."""
    prefix, responses = batch.prefix_mask.sum(), batch.response_mask.sum(axis=(0, 2))
    return int(sum(prefix + responses[candidate.response] for candidate in recipe.candidates))


def flops_of_example(method: Method, batch: Batch, cached: bool) -> int:
    """Of one example of the step with nothing computed twice, at the lengths that the batch is padded to."""
    return step_flops(
        method.model,
        method.recipe,
        prefix=batch.prefix_tokens.shape[1],
        answer=batch.response_tokens.shape[2],
        rank=LORA.rank,
        cached=cached,
        remat="none",
    )


def with_guessed_reference(batches: Sequence[Batch], recipe: Recipe, method: Method) -> list[Batch]:
    """The batches with what a reference would say that holds all tokens equally likely: time is the same."""
    guess = -np.log(np.float32(method.model.language.vocab_size))
    responses = [candidate.response for candidate in recipe.candidates]
    return [
        batch._replace(
            reference=Kept(
                np.where(batch.response_mask[:, responses], guess, np.float32(0)),
                np.zeros((len(batch.weights), len(recipe.made), batch.response_tokens.shape[2]), np.int32),
            )
        )
        for batch in batches
    ]


if __name__ == "__main__":
    main()
