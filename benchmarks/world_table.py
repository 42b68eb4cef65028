"""Every recipe on the built-in world, beside two controls, over several seeds.

    make table        or: python -m benchmarks.world_table --seeds=0,1,2 --runs=runs/table

Prints two Markdown tables, the recipes with mean and spread and the demo's recipe seed by seed, and writes
them, dated, to docs/world_table.md and between the marks in README.md. Stop it whenever you like: what is
finished is kept, and the same command goes on with the rest.
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

_HEADINGS = {
    "chair_s": "CHAIR_s",
    "chair_i": "CHAIR_i",
    "recall": "recall",
    "pope_f1": "POPE F1",
    "pope_accuracy": "POPE accuracy",
    "pope_yes_ratio": "yes-ratio",
    "mean_words": "words",
}
_BY_SEED = ("chair_s", "recall", "pope_f1")
_DEMO = "lpoi"
_DOCUMENT, _README = Path("docs/world_table.md"), Path("README.md")
_BEGIN, _END = "<!-- table: written by `make table` -->\n", "<!-- end of table -->"


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


def spread_table(results: dict[str, list[dict]]) -> str:
    """Rows of arms, columns of measures: mean ± standard deviation over the seeds."""
    rows = []
    for name, scores in results.items():
        cells = []
        for measure in _HEADINGS:
            values = np.array([score[measure] for score in scores])
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            cells.append(f"{values.mean():.1f} ± {spread:.1f}")
        rows.append([name, *cells])
    return _table(["recipe", *_HEADINGS.values()], rows)


def seed_table(summaries: dict[int, dict]) -> str:
    """Rows of seeds, columns of measures: before -> after."""
    rows = [
        [str(seed), *(f"{s['before'][m]:.1f} -> {s['after'][m]:.1f}" for m in _BY_SEED)]
        for seed, s in summaries.items()
    ]
    return _table([f"{_DEMO}, seed", *(_HEADINGS[measure] for measure in _BY_SEED)], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_between_marks(path: Path, text: str) -> None:
    """Replaces what stands between the marks in a file.

    Raises:
      ValueError: where the file has not both marks.
    """
    before, begin, rest = path.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{path} needs the lines {_BEGIN.strip()} and {_END}, with the table between them")
    path.write_text(f"{before}{begin}{text}\n{end}{after}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs/table"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override in every arm")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]

    results: dict[str, list[dict]] = {"base (sft)": []}
    demo: dict[int, dict] = {}
    with tqdm(total=len(seeds) * len(ARMS), desc="table", unit="run") as bar:
        for seed in seeds:
            for arm in ARMS:
                summary = run_arm(arm, seed, arguments.runs, arguments.set)
                results.setdefault(arm.name, []).append(summary["after"])
                if arm.name == _DEMO:
                    demo[seed] = summary
                bar.update()
            results["base (sft)"].append(summary["before"])
    n = results["base (sft)"][0]
    command = " ".join(["python -m benchmarks.world_table", *sys.argv[1:]])
    note = (
        f"{datetime.date.today()}, seeds {arguments.seeds}: mean ± standard deviation over seeds, in "
        f"percent; {n['n']} unbiased held-out scenes and {n['pope_n']} probes a seed, greedy answers, "
        f"{summary['steps']} steps of {summary['batch_size']}. `{command}`"
    )
    text = f"{spread_table(results)}\n\n{seed_table(demo)}\n\n{note}"
    _DOCUMENT.write_text(f"# Recipes on the built-in world\n\n{text}\n")
    if not sys.argv[1:]:
        write_between_marks(_README, text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
