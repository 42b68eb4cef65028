"""Training runs of a model of a few thousand parameters, each in processes of its own."""

import socket
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests import forked
from tests.forked import Forked
from vla_jax.training.tracking import read_metrics

TRAIN = "vla_jax.train"
TINY = (
    "model.vision.image_size=36",
    "model.vision.patch_size=12",
    "model.vision.hidden_size=16",
    "model.vision.intermediate_size=32",
    "model.vision.num_layers=1",
    "model.language.hidden_size=16",
    "model.language.intermediate_size=32",
    "model.language.num_layers=1",
    "train.batch_size=4",
    "evaluation.max_new_tokens=8",
    "evaluation.saliency=False",
)


def flags(config: str, workdir: Path, *settings: str) -> list[str]:
    """Of a run's command line."""
    loaded = any(setting.startswith("base.model=") for setting in settings)
    tiny = [setting for setting in TINY if not (loaded and setting.startswith("model."))]
    fields = (*tiny, f"base.cache={workdir.parent / 'base'}", *settings)
    return [
        f"--config=configs/{config}.py",
        f"--workdir={workdir}",
        *(f"--config.{field}" for field in fields),
    ]


def run(config: str, workdir: Path, *settings: str, **how: Any) -> CompletedProcess[str]:
    """Runs it to its end; `how` is `Forked`'s."""
    return forked.run(TRAIN, *flags(config, workdir, *settings), **how)


def start(config: str, workdir: Path, *settings: str) -> Forked:
    """Starts it."""
    return Forked(TRAIN, *flags(config, workdir, *settings))


def start_together(count: int, config: str, workdir: Path, *settings: str) -> list[Forked]:
    """Starts the processes of one run, which find each other on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        Forked(
            TRAIN,
            *flags(config, workdir, *settings),
            f"--coordinator=127.0.0.1:{port}",
            f"--num_processes={count}",
            f"--process_id={number}",
            environment={"JAX_PLATFORMS": "cpu"},
        )
        for number in range(count)
    ]


def losses(workdir: Path) -> list[float]:
    """Of every step; an evaluation is a row without one."""
    return [row["loss"] for row in read_metrics(workdir / "metrics.jsonl") if "loss" in row]


def last_checkpoint(workdir: Path) -> int:
    """Step of the newest committed checkpoint, 0 before there is one."""
    steps = [int(file.name) for file in (workdir / "checkpoints").glob("*") if file.name.isdigit()]
    return max(steps, default=0)
