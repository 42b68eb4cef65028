"""What a run logs: a JSON line a step, TensorBoard, and a progress bar."""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

# Steps whose mean duration is logged as the speed: steps are logged one late, in uneven strides.
_SPEED_STEPS = 20


class Tracker:
    """Writes the metrics of every step; a resumed run drops what was logged after its checkpoint.

    Args:
      workdir: `metrics.jsonl` and `tensorboard/` go here.
      start: steps already done.
      steps: steps of the whole run.
      batch_size: examples a step.
      title: stands before the progress bar.
    """

    def __init__(self, workdir: Path, start: int, steps: int, batch_size: int, title: str):
        self._path, self._batch_size = workdir / "metrics.jsonl", batch_size
        keep = [row for row in read_metrics(self._path) if row["step"] <= start]
        partial = self._path.with_name(".metrics.jsonl")
        partial.write_text("".join(json.dumps(row) + "\n" for row in keep))
        os.replace(partial, self._path)
        self._file = self._path.open("a")
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

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs one step; adds `examples_per_second`, a mean over the last few steps."""
        self._times.append(time.perf_counter())
        seconds = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        row = {"step": step, **metrics, "examples_per_second": self._batch_size / max(seconds, 1e-9)}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        self._bar.set_postfix_str(_postfix(row), refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Closes the files and the bar."""
        self._bar.close()
        self._board.close()
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl` up to the first that is not whole (a run killed while it wrote)."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def _postfix(row: Mapping[str, float]) -> str:
    shown = [f"loss {row['loss']:.3f}"]
    if "rewards/accuracies" in row:
        shown.append(f"accuracies {row['rewards/accuracies']:.2f}")
        shown.append(f"margins {row['rewards/margins']:+.2f}")
    return ", ".join([*shown, f"{row['examples_per_second']:.0f} examples/s"])
