"""Training runs of a model of a few thousand parameters, each in processes of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from vla_jax.training.tracking import read_metrics

ROOT = Path(__file__).parents[1]
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


def command(config: str, workdir: Path, *settings: str) -> list[str]:
    loaded = any(setting.startswith("base.model=") for setting in settings)
    tiny = [setting for setting in TINY if not (loaded and setting.startswith("model."))]
    flags = [f"--config.{setting}" for setting in (*tiny, f"base.cache={workdir.parent / 'base'}", *settings)]
    return [
        sys.executable,
        "-m",
        "vla_jax.train",
        f"--config=configs/{config}.py",
        f"--workdir={workdir}",
        *flags,
    ]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=600)


def start_together(count: int, *arguments: str | Path) -> list[subprocess.Popen[str]]:
    """Starts the processes of one run, which find each other on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [
                *command(*arguments),
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={count}",
                f"--process_id={number}",
            ],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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
