"""What a training step takes of each chip of a TPU pod, and the largest batch with which it fits.

    make pods        or: python -m benchmarks.pods [--only=v5e-8]

Compiles the real step ahead of time (`vla_jax/training/aot.py`; minutes each, no TPU needed) with more and
more rows a chip, until the largest number is found with which it takes at most 90 % of a chip's memory. What
was compiled is kept in docs/pods/, a file a row with the identity of every program, so that the same command
goes on where it was stopped, and after a change compiles only programs that became others. Writes the table
into docs/pods.md.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from vla_jax.train import load_config
from vla_jax.training.abstract import abstract_model
from vla_jax.training.aot import Compiled, trace_step, with_kernel
from vla_jax.training.programs import GIB

PAGE, _KEPT = Path("docs/pods.md"), Path("docs/pods")
_BEGIN = "<!-- table: written by `make pods` -->\n"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
      what: method and model.
      pod: as it is ordered; v4 and v5p count cores there, two of a chip.
      topology: the same, as the grid of its chips.
      chips: how many.
      config: config file.
    """

    what: str
    pod: str
    topology: str
    chips: int
    config: str

    @property
    def file(self) -> Path:
        """Where its figures are kept."""
        return _KEPT / f"{Path(self.config).stem}-{self.pod}.json"

    def settings(self, rows: int) -> dict[str, int]:
        """What is set on top of the config: so many rows a chip, all at once."""
        return {"train.batch_size": rows * self.chips, "train.microbatch_size": 0}


ROWS = (
    Row("LLaVA-1.5-7B, LPOI-5, LoRA", "v5e-8", "v5e:2x4", 8, "configs/llava15_7b_lpoi.py"),
    Row("LLaVA-1.5-7B, LPOI-5, LoRA", "v5e-16", "v5e:4x4", 16, "configs/llava15_7b_lpoi.py"),
    Row("LLaVA-1.5-13B, LPOI-5, LoRA", "v5e-16", "v5e:4x4", 16, "configs/llava15_13b_lpoi.py"),
    Row("LLaVA-1.5-13B, LPOI-5, LoRA", "v4-8", "v4:2x2x1", 4, "configs/llava15_13b_lpoi.py"),
    Row("LLaVA-1.5-7B, AdaViP, full", "v5p-8", "v5p:2x2x1", 4, "configs/llava15_7b_adavip.py"),
    Row("LLaVA-1.5-7B, AdaViP, full", "v5e-64", "v5e:8x8", 64, "configs/llava15_7b_adavip.py"),
    Row("LLaVA-1.6-7B, DPO, LoRA", "v6e-8", "v6e:2x4", 8, "configs/llava16_7b_dpo.py"),
)


def identity(row: Row, rows: int) -> str:
    """The identity of the program of so many rows a chip, as configs and code make it now."""
    config = with_kernel(load_config(Path(row.config)))
    config.update_from_flattened_dict(row.settings(rows))
    return trace_step(config, abstract_model(config), row.topology).identity


def kept(row: Row) -> dict[str, Any]:
    """What is known of a row: its `programs` by rows a chip, and the largest number that fits, if found."""
    return json.loads(row.file.read_text()) if row.file.is_file() else {"programs": {}}


def measure(row: Row, rows: int) -> Compiled:
    """What a step takes with so many rows a chip: compiled in a process of its own, or as it is kept."""
    known = kept(row)
    found = known["programs"].get(str(rows))
    if found is None or found["identity"] != identity(row, rows):
        settings = [f"--config.{field}={value}" for field, value in row.settings(rows).items()]
        command = [sys.executable, "-m", "vla_jax.training.aot", f"--config={row.config}", *settings]
        run = subprocess.run(
            [*command, f"--topology={row.topology}", "--json"], stdout=subprocess.PIPE, text=True
        )
        if not run.stdout:
            raise SystemExit(f"error: {row.config} on {row.pod} with {rows} rows a chip was not compiled")
        found = json.loads(run.stdout.splitlines()[-1])
        known["programs"][str(rows)] = found
        keep(row, {**known, "jax": jax.__version__, "libtpu": version("libtpu")})
    return Compiled(**found)


def keep(row: Row, known: Mapping[str, Any]) -> None:
    """Writes what is known of a row."""
    row.file.parent.mkdir(parents=True, exist_ok=True)
    row.file.write_text(json.dumps(dict(known), indent=1))


def largest(measure: Callable[[int], Compiled], first: int = 1) -> int:
    """The largest number of rows that fits, 0 for none: that number and the next are always measured.

    Args:
      measure: rows -> what a step takes; more rows take more.
      first: the number to begin with.
    """
    known: dict[int, Compiled] = {}
    rows = first
    while True:
        known[rows] = measure(rows)
        fits = max((rows for rows, step in known.items() if step.fits), default=0)
        beyond = min((rows for rows, step in known.items() if not step.fits), default=None)
        if beyond == fits + 1:
            return fits
        rows = max(guess(known), fits + 1)
        if beyond is not None:
            rows = min(rows, beyond - 1)


def guess(known: Mapping[int, Compiled]) -> int:
    """How many rows would just fit, were bytes a straight line of rows."""
    if len(known) == 1:
        ((rows, step),) = known.items()
        return int(rows * (step.limit - step.arguments) / max(step.total - step.arguments, 1))
    # Through the two that are nearest to the limit.
    one, two = sorted(known, key=lambda rows: abs(known[rows].total - known[rows].limit))[:2]
    slope = (known[two].total - known[one].total) / (two - one)
    return int(one + (known[one].limit - known[one].total) / slope) if slope > 0 else max(known) * 2


def table(found: Mapping[Row, Mapping[str, Any]]) -> str:
    """The rows whose largest batch is known."""
    heads = (
        "run",
        "pod",
        "rows a chip",
        "batch",
        "GiB a chip: arguments + temporaries + outputs",
        "share of memory",
        "PFLOP a step",
        "s a step at 40 % of peak",
        "s to compile",
        "program",
    )
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row, known in found.items():
        rows = known["largest"]
        step = Compiled(**known["programs"][str(max(rows, 1))])
        parts = " + ".join(f"{n / GIB:.1f}" for n in (step.arguments, step.temporaries, step.outputs))
        cells = (
            row.what,
            row.pod,
            str(rows) if rows else "0: one does not fit",
            str(step.rows),
            f"{parts} = {step.total / GIB:.1f}",
            f"{0.9 * step.total / step.limit:.0%}",
            f"{step.flops / 1e15:.1f}",
            f"{step.step_seconds:.1f}",
            f"{step.seconds:.0f}",
            f"`{step.identity}`",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(found: Mapping[Row, Mapping[str, Any]]) -> str:
    """The page as it should be: its text, and the table under it."""
    text, mark, _ = PAGE.read_text().partition(_BEGIN)
    if not mark:
        raise ValueError(f"{PAGE} needs the line {_BEGIN.strip()}, under which the table goes")
    versions = sorted({f"JAX {known['jax']}, libtpu {known['libtpu']}" for known in found.values()})
    return f"{text}{_BEGIN}{table(found)}\n\nCompiled with {'; '.join(versions)}.\n"


def finished() -> dict[Row, dict[str, Any]]:
    """What is kept of the rows whose largest batch is known."""
    return {row: known for row in ROWS if "largest" in (known := kept(row))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="of the rows, those on this pod")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    for row in tqdm([row for row in ROWS if arguments.only in ("", row.pod)], desc="pods", unit="row"):
        before = max(kept(row).get("largest", 1), 1)
        found = largest(lambda rows, row=row: measure(row, rows), before)
        keep(row, {**kept(row), "largest": found})
        PAGE.write_text(page(finished()))
    print(table(finished()))


if __name__ == "__main__":
    main()
