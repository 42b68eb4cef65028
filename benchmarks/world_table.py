"""Every recipe on the built-in world, beside two controls, over several seeds.

    make table        or: python -m benchmarks.world_table --seeds=0,1,2 --runs=runs/table

Prints a Markdown table with mean and spread, and writes it, dated, to docs/world_table.md. Stop it whenever
you like: what is finished is kept, and the same command goes on with the rest.
"""

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

_MEASURES = ("chair_s", "chair_i", "recall", "pope_f1", "pope_accuracy", "pope_yes_ratio", "mean_words")
_DOCUMENT = Path("docs/world_table.md")


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
      name: of the row and of its working directories.
      config: config file.
      overrides: `a.b=c` settings on top.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()


ARMS = (
    Arm("dpo", "configs/world_dpo.py"),
    Arm("mdpo", "configs/world_mdpo.py"),
    Arm("lpoi", "configs/world_lpoi.py"),
    Arm("control: sft on chosen", "configs/world_dpo.py", ("recipe=sft",)),
    Arm("control: dpo, shuffled labels", "configs/world_dpo.py", ("data.flip_labels=True",)),
)


def run_arm(arm: Arm, seed: int, runs: Path, extra: Sequence[str]) -> dict:
    """Trains and evaluates one arm with one seed, unless its summary is there, and returns the summary."""
    workdir = runs / f"{arm.name.replace(': ', '-').replace(', ', '-').replace(' ', '_')}-seed{seed}"
    command = [sys.executable, "-m", "vla_jax.train", f"--config={arm.config}", f"--workdir={workdir}"]
    settings = (f"seed={seed}", *arm.overrides, *extra)
    subprocess.run([*command, *(f"--config.{setting}" for setting in settings)], check=True)
    return json.loads((workdir / "summary.json").read_text())


def as_markdown(results: dict[str, list[dict]]) -> str:
    """Rows of arms, columns of measures: mean ± standard deviation over the seeds."""
    lines = [
        "| recipe | " + " | ".join(_MEASURES) + " |",
        "|---|" + "---|" * len(_MEASURES),
    ]
    for name, scores in results.items():
        cells = []
        for measure in _MEASURES:
            values = np.array([score[measure] for score in scores])
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            cells.append(f"{values.mean():.1f} ± {spread:.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs/table"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override in every arm")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]

    results: dict[str, list[dict]] = {"base (sft)": []}
    with tqdm(total=len(seeds) * len(ARMS), desc="table", unit="run") as bar:
        for seed in seeds:
            for arm in ARMS:
                summary = run_arm(arm, seed, arguments.runs, arguments.set)
                results.setdefault(arm.name, []).append(summary["after"])
                bar.update()
            results["base (sft)"].append(summary["before"])
    n = results["base (sft)"][0]
    table = as_markdown(results)
    command = " ".join(["python -m benchmarks.world_table", *sys.argv[1:]])
    note = (
        f"{datetime.date.today()}, seeds {arguments.seeds}: mean ± standard deviation over seeds, in "
        f"percent; {n['n']} unbiased scenes and {n['pope_n']} probes a seed, greedy answers, "
        f"{summary['steps']} steps of {summary['batch_size']}. `{command}`"
    )
    _DOCUMENT.write_text(f"# Recipes on the built-in world\n\n{table}\n\n{note}\n")
    print(f"\n{table}\n\n{note}")


if __name__ == "__main__":
    main()
