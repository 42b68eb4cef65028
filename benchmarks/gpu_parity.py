"""Parity stage of `gpu.py`: losses, gradients and responses of a small LLaVA, the GPU's beside the CPU's.

In float32 with products at their highest precision, the two backends of one process must agree: greedy
tokens wholly, their log-probabilities and the losses (relatively) within `TOLERANCE`, and so gradients by the
norm of the difference over the norm, the worst of all parameters. In bfloat16 there are no such bounds, only
distances from float32: gradients through cuDNN's attention must be at most `FURTHER` times as far from it as
those through the plain attention are.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.decode import Ours, make_prompts
from benchmarks.gpu_inputs import NEW_TOKENS, Job
from benchmarks.gpu_model import abstract_model, batches_of, random_adapter, random_params
from benchmarks.step_of_ours import make_method
from vla_jax.data import Batch
from vla_jax.models import LlavaConfig
from vla_jax.models.compute import Compute
from vla_jax.models.parameters import Params
from vla_jax.recipes import named
from vla_jax.rollout import Sampled
from vla_jax.training.step import Trained, gradients_and_metrics

TOLERANCE = 1e-4
FURTHER = 1.5
RECIPES = {"dpo": {}, "lpoi": {"num_views": 5}}


class Gradients(NamedTuple):
    """Of one batch, on the host."""

    loss: float
    arrays: list[np.ndarray]


def main() -> None:
    """Adds {parity, loss, gradients, agrees} for every comparison."""
    job = Job.from_command_line()
    model = abstract_model(small=True)
    gpu, cpu = jax.devices()[0], jax.devices("cpu")[0]
    with jax.default_matmul_precision("highest"):
        params = jax.device_get(random_params(model.config, jnp.float32))
    trained, batch = jax.device_get(random_adapter(model.config, loud=True)), batches_of(model, job)[0]
    compare_responses(job, model.config, params, gpu, cpu)
    for name, options in RECIPES.items():
        on = partial(gradients_on, model.config, named(name, options), job, trained=trained, batch=batch)
        with jax.default_matmul_precision("highest"):
            exact, expected = (on(device, params=params) for device in (gpu, cpu))
        loss, gradients = apart(exact, expected)
        agrees = loss <= TOLERANCE and gradients <= TOLERANCE
        print(
            f"{name}: {gpu.platform} and cpu, float32: loss {loss:.1e}, gradients {gradients:.1e} apart",
            flush=True,
        )
        job.say(parity=f"{name}, {gpu.platform} = cpu", loss=loss, gradients=gradients, agrees=agrees)
        if gpu.platform == "gpu":
            half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
            compare_attentions(job, name, partial(on, gpu, params=half), exact)


def compare_responses(
    job: Job, config: LlavaConfig, params: Params, gpu: jax.Device, cpu: jax.Device
) -> None:
    """Greedy tokens of both devices, which are to be the same, and their log-probabilities."""
    prompts = make_prompts(config)

    def on(device: jax.Device) -> Sampled:
        placed, pixels = jax.device_put((params, prompts.pixels), device)
        return jax.device_get(Ours(placed, config, prompts._replace(pixels=pixels)).respond(NEW_TOKENS))

    with jax.default_matmul_precision("highest"):
        made, expected = on(gpu), on(cpu)
    same = bool((made.tokens == expected.tokens).all())
    apart = float(np.abs(made.log_probs - expected.log_probs).max())
    print(
        f"greedy responses: {gpu.platform} and cpu, float32: tokens {'the same' if same else 'differ'}, "
        f"log-probabilities {apart:.1e} apart",
        flush=True,
    )
    job.say(parity=f"greedy responses, {gpu.platform} = cpu", agrees=same and apart <= TOLERANCE)


def gradients_on(
    config: Any,
    recipe: Any,
    job: Job,
    device: jax.Device,
    *,
    trained: Trained,
    params: Params,
    batch: Batch,
    attention: str = "xla",
) -> Gradients:
    """Computed on that device."""
    method = make_method(config, recipe, job.settings, Compute(attention, "block", allow_unverified=True))
    arguments = jax.device_put((trained, params, batch), device)
    gradients, metrics = jax.jit(partial(gradients_and_metrics, method))(*arguments)
    return Gradients(float(metrics["loss"]), jax.tree.leaves(jax.device_get(gradients)))


def compare_attentions(job: Job, name: str, on: Any, exact: Gradients) -> None:
    """Plain and cuDNN's attention in bfloat16, each beside float32."""
    plain = apart(on(attention="xla"), exact)
    try:
        fused = apart(on(attention="cudnn"), exact)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        print(f"{name}: attention 'cudnn' does not run: {error}", flush=True)
        job.say(parity=f"{name}, cudnn = xla", loss=float("inf"), gradients=float("inf"), agrees=False)
        return
    agrees = fused[1] <= FURTHER * plain[1]
    print(
        f"{name}: bfloat16 beside float32: loss {plain[0]:.1e} (xla) {fused[0]:.1e} (cudnn), "
        f"gradients {plain[1]:.1e} (xla) {fused[1]:.1e} (cudnn) apart",
        flush=True,
    )
    job.say(parity=f"{name}, cudnn = xla", loss=fused[0], gradients=fused[1], agrees=agrees)


def apart(made: Gradients, expected: Gradients) -> tuple[float, float]:
    """How far the loss is off, relatively, and the worst gradient, by norms."""
    loss = abs(made.loss / expected.loss - 1)
    norms = [
        float(np.linalg.norm(np.float64(m - e)) / np.linalg.norm(np.float64(e)))
        for m, e in zip(made.arrays, expected.arrays, strict=True)
    ]
    # NumPy's maximum, unlike Python's, is NaN where one is.
    return loss, float(np.max(norms))


if __name__ == "__main__":
    main()
