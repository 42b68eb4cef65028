"""What a run logs: a JSON line a step, TensorBoard, Weights & Biases where asked, and a progress bar."""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from vla_jax.host_memory import most_held_bytes

# Steps whose mean duration is logged as the speed: steps are logged one late, in uneven strides.
_SPEED_STEPS = 20
# What of each step's metrics is smoothed too, and how much of the mean before stays each step.
_SMOOTHED, _DECAY = ("loss", "rewards/accuracies", "rewards/margins"), 0.98
_GIB = 2**30
# In the working directory: what was logged, and what methods that roll out answered.
METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases, beside the files.

    Attributes:
      project: where the run appears; "" logs nothing there. The key comes from `wandb login` or the
        environment.
      name: of the run; "" takes the working directory's.
    """

    project: str = ""
    name: str = ""


class Tracker:
    """Writes the metrics of every step; a resumed run drops what was logged after its checkpoint.

    Args:
      workdir: `metrics.jsonl` and `tensorboard/` go here.
      start: steps already done.
      steps: steps of the whole run.
      batch_size: examples a step.
      title: stands before the progress bar.
      wandb: whether to log there too.
      config: what it shows as the run's configuration.

    Raises:
      ModuleNotFoundError: where it is asked for and not installed.
    """

    def __init__(
        self,
        workdir: Path,
        start: int,
        steps: int,
        batch_size: int,
        title: str,
        wandb: WandbConfig = WandbConfig(),
        config: Mapping[str, Any] | None = None,
    ):
        self._wandb = _wandb_run(wandb, workdir, config or {}) if wandb.project else None
        self._path, self._batch_size = workdir / METRICS, batch_size
        keep = [row for row in read_metrics(self._path) if row["step"] <= start]
        self._means = _Means()
        for row in keep:
            self._means.add(row)
        _keep_rows(self._path, keep)
        self._file = self._path.open("a")
        self._samples = workdir / SAMPLES
        if self._samples.is_file():
            _keep_rows(self._samples, [row for row in read_metrics(self._samples) if row["step"] <= start])
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(
            total=steps,
            initial=start,
            desc=title,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,
        )
        self._times = deque([time.perf_counter()], maxlen=_SPEED_STEPS + 1)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs one step, with smoothed metrics, memory held, and `examples_per_second` of the last steps."""
        self._times.append(time.perf_counter())
        seconds = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        row = _finite(metrics)
        row |= self._means.add(row)
        row |= {"examples_per_second": self._batch_size / max(seconds, 1e-9), **_memory()}
        self._write(step, row)
        self._bar.set_postfix_str(_postfix(row), refresh=False)
        self._bar.update(step - self._bar.n)

    def log_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs what was measured after a step; names begin with `eval_`."""
        self._write(step, _finite(metrics))
        shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in sorted(metrics) if name.count("/") < 2)
        self.say(f"step {step}: {shown}")

    def log_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Keeps what was answered in a round, and what it was worth, in `samples.jsonl`."""
        if samples:
            with self._samples.open("a") as file:
                file.writelines(json.dumps({"step": step, **sample}) + "\n" for sample in samples)

    def say(self, line: str) -> None:
        """A line above the progress bar."""
        self._bar.write(line, file=sys.stderr)

    def _write(self, step: int, row: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in row.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(row), step=step)

    def close(self) -> None:
        """Closes the files and the bar."""
        self._bar.close()
        self._board.close()
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


class Silent(Tracker):
    """What the other processes of a run have: it says and writes nothing."""

    def __init__(self) -> None:
        pass

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def log_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def log_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class _Means:
    """Exponential means of some metrics, corrected for their start at 0 (as in Adam)."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, row: Mapping[str, float]) -> dict[str, float]:
        """The means with these values in them."""
        means = {}
        for name in _SMOOTHED:
            if name in row:
                total, weight = self._sums.get(name, (0.0, 0.0))
                total = _DECAY * total + (1 - _DECAY) * row[name]
                weight = _DECAY * weight + 1 - _DECAY
                self._sums[name] = total, weight
                means[f"ema/{name}"] = total / weight
        return means


def _keep_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Leaves a file with these rows alone."""
    partial = path.with_name(f".{path.name}")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(partial, path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, without lines that are none: a run may be killed while it writes."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(errors="replace").split("\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """What is finite of them: no JSON holds the rest."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _memory() -> dict[str, float]:
    """The most that the process and its first device have held, in GiB; a CPU's device is the process."""
    held = {"memory/host_gib": most_held_bytes() / _GIB}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        held["memory/device_gib"] = stats["peak_bytes_in_use"] / _GIB
    return held


def _wandb_run(settings: WandbConfig, workdir: Path, config: Mapping[str, Any]) -> Any:
    try:
        import wandb
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "tracking.project is set, and wandb is not installed: pip install wandb, or leave it at ''"
        ) from None
    # The same run goes on after a restart: its id is kept beside its files.
    known = workdir / "wandb_id"
    if not known.is_file():
        known.write_text(wandb.util.generate_id())
    return wandb.init(
        project=settings.project,
        name=settings.name or workdir.name,
        id=known.read_text().strip(),
        resume="allow",
        dir=str(workdir),
        config=dict(config),
    )


def _postfix(row: Mapping[str, float]) -> str:
    shown = [f"loss {row['ema/loss']:.3f}"] if "ema/loss" in row else []
    if "ema/rewards/accuracies" in row:
        shown.append(f"accuracies {row['ema/rewards/accuracies']:.2f}")
        shown.append(f"margins {row['ema/rewards/margins']:+.2f}")
    return ", ".join([*shown, f"{row['examples_per_second']:.0f} examples/s"])
