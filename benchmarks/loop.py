"""What the trainer's loop costs beside its steps, and how long a step waits for its data.

    python -m benchmarks.loop        or: make loop

The model of 63 million parameters of `step_vs_trl` trains with DPO (LoRA of rank 8, 2 pairs a step, reference
online) on JPEG photographs of 640 x 480, read, resized and tokenised while it trains, through the trainer's
own loop: its log, its TensorBoard, its checkpoints, one for every segment. After each segment of steps the
loop is held, and the same compiled step is taken as often on one batch that lies ready. The last lines are
the share of its time that the loop waited for batches, and what a step takes more in the loop than bare.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
from absl import logging

from benchmarks.data import write_photographs
from benchmarks.step_inputs import make_pairs
from vla_jax.host_memory import keep_freed_memory
from vla_jax.interop import import_model
from vla_jax.parallel import make_mesh, place_batch
from vla_jax.training.assembly import assemble
from vla_jax.training.beginning import trained_at_first
from vla_jax.training.checkpoints import Checkpoints
from vla_jax.training.configuration import default_config
from vla_jax.training.loop import LoopConfig, fit
from vla_jax.training.run import Run
from vla_jax.training.step import TrainState, make_step
from vla_jax.training.tracking import Tracker, read_metrics

PAIRS, SEGMENT = 2, 4


class Held:
    """Stands where an evaluation would: times the loop up to here, then as many bare steps.

    Args:
      run: what trains.
      base: its frozen parameters.
    """

    def __init__(self, run: Run, base: object):
        self.loop: list[float] = []
        self.bare: list[float] = []
        self._base = base
        self._step = make_step(run.method())
        rows = jnp.arange(PAIRS)
        self._batch = place_batch(run.mesh, next(run.open_batches(0, 1)), rows, PAIRS)
        self._started: float | None = None

    def __call__(self, state: TrainState) -> dict[str, float]:
        """No figures. The first segment, in which programs are compiled, is not counted."""
        now = time.perf_counter()
        copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
        if self._started is None:
            copy, _ = jax.block_until_ready(self._step(copy, self._base, self._batch))
        else:
            self.loop.append((now - self._started) / SEGMENT)
            started = time.perf_counter()
            for _ in range(SEGMENT):
                copy, metrics = jax.block_until_ready(self._step(copy, self._base, self._batch))
            self.bare.append((time.perf_counter() - started) / SEGMENT)
        self._started = time.perf_counter()
        return {}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=8, help=f"of {SEGMENT} steps, the first not counted")
    parser.add_argument("--cache", default="runs/step_vs_trl", help="where the checkpoint is kept")
    options = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    keep_freed_memory()
    checkpoint = Path(options.cache) / "checkpoint"
    if not checkpoint.is_dir():
        subprocess.run([sys.executable, "-m", "benchmarks.step_checkpoint", str(checkpoint)], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        report(*train(Path(scratch), checkpoint, options.segments * SEGMENT))


def train(folder: Path, checkpoint: Path, steps: int) -> tuple[Held, list[dict[str, float]]]:
    """Trains in `folder`; gives the times, and what was logged of the steps that count."""
    files, data = write_photographs(folder), folder / "pairs.jsonl"
    rows = [
        {"image": file.name, "prompt": pair.question, "chosen": pair.chosen, "rejected": pair.rejected}
        for pair, file in zip(make_pairs(steps * PAIRS), cycle(files), strict=False)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = default_config()
    config.recipe = "dpo"
    config.data.update({"source": "trl", "path": str(data), "length_multiple": 0, "preflight": 8})
    config.data.update({"max_prompt_length": 704, "max_completion_length": 192})
    config.lora.rank, config.compute.unroll = 8, True
    config.train.steps, config.train.batch_size = steps, PAIRS
    model = import_model(checkpoint, str(checkpoint), make_mesh(devices=jax.devices()[:1]))
    run = assemble(config, model)
    held = Held(run, run.model.params)
    fit(
        run.method(),
        run.method().init(trained_at_first(config, model.config, run.recipe, run.model.params)),
        run.model.params,
        run.open_batches,
        LoopConfig(steps, PAIRS, microbatches=1, checkpoint_every=SEGMENT, evaluate_every=SEGMENT),
        mesh=run.mesh,
        checkpoints=Checkpoints(folder / "checkpoints", keep=2),
        open_tracker=lambda start: Tracker(folder, start, steps, PAIRS, "loop"),
        length_of=lambda step: 0,
        describe=lambda step: {},
        evaluate=held,
        profile_folder=folder / "profile",
    )
    return held, [row for row in read_metrics(folder / "metrics.jsonl") if row["step"] > SEGMENT]


def report(held: Held, rows: list[dict[str, float]]) -> None:
    """Prints what came out, the two shares last."""
    ratios = [loop / bare - 1 for loop, bare in zip(held.loop, held.bare, strict=True)]
    print(
        f"{len(ratios)} segments of {SEGMENT} steps: {median(held.loop):.3f} s a step in the loop "
        f"({min(held.loop):.3f} to {max(held.loop):.3f}), {median(held.bare):.3f} s bare "
        f"({min(held.bare):.3f} to {max(held.bare):.3f})"
    )
    waits = [row["data_wait"] for row in rows if "data_wait" in row]
    print(f"waiting for data: {sum(waits) / len(waits):.2%} of the loop (at most {max(waits):.2%} of a step)")
    print(f"a step takes {median(ratios):+.1%} in the loop ({min(ratios):+.1%} to {max(ratios):+.1%})")


if __name__ == "__main__":
    main()
