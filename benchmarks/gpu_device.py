"""First stage of `gpu.py`: which device there is, what it can do, and the checkpoint without weights.

The peak is that of one large bfloat16 matrix product, over and over.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.gpu_inputs import Job

SQUARE, SMALL_SQUARE = 8192, 512
PRODUCTS = 20


def main() -> None:
    """Adds {platform, kind, peak}; peak is FLOP/s, 0 where nothing will be measured."""
    job = Job.from_command_line()
    device = jax.devices()[0]
    if device.platform != "gpu" and not job.small:
        job.say(platform=device.platform, kind=device.device_kind, peak=0.0)
        return
    peak = product_flops_per_second(SMALL_SQUARE if job.small else SQUARE)
    write_folder(job)
    job.say(platform=device.platform, kind=device.device_kind, peak=peak)


def product_flops_per_second(side: int) -> float:
    """Of bfloat16 matrices added up in float32, on random values; the fastest of five rounds."""
    left, right = (jax.random.normal(jax.random.key(i), (side, side), jnp.bfloat16) for i in range(2))
    multiply = jax.jit(jnp.matmul)

    def seconds() -> float:
        started = time.perf_counter()
        for _ in range(PRODUCTS):
            made = multiply(left, right)
        jax.block_until_ready(made)
        return time.perf_counter() - started

    seconds()
    return 2 * side**3 * PRODUCTS / min(seconds() for _ in range(5))


def write_folder(job: Job) -> None:
    """What the PyTorch side reads: everything but weights."""
    from benchmarks.gpu_model import abstract_model
    from vla_jax.interop.hugging_face import export_all_but_weights

    Path(job.folder).mkdir()
    export_all_but_weights(Path(job.folder), abstract_model(job.small))


if __name__ == "__main__":
    main()
