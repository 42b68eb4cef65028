"""Every recipe on the built-in world beside two controls, and the main ablations, over several seeds.

    make table        or: python -m benchmarks.world_table --seeds=0,1,2 --runs=runs/table

Prints Markdown tables, the recipes and the ablations with mean and spread and the demo's recipe seed by
seed, and writes them, dated, to docs/world_table.md. Where all are finished and nothing but these settings
was asked for, the recipes' go between the marks in README.md too. Stop it whenever you like: what is
finished is kept, and the same command goes on with the rest. Seeds are finished one after the other; where
not all are, the table says of each arm how many it stands on.
"""

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.configured import configured, made_once
from benchmarks.tables import markdown, mean_and_spread, write_page
from vla_jax.construct.key_objects import pack_verified
from vla_jax.train import base_model
from vla_jax.training.configuration import default_config

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
_DEMO, _BASE = "lpoi", "base (sft)"
_DOCUMENT, _README = Path("docs/world_table.md"), Path("README.md")
_BEGIN, _END = "<!-- table: written by `make table` -->\n", "<!-- end of table -->"


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
      name: of the row and of its working directories.
      config: config file.
      overrides: `a.b=c` settings on top.
      verified: train on pairs whose key object the base model has verified.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    verified: bool = False


ARMS = (
    *(
        Arm(name, f"configs/world_{name}.py")
        for name in ("dpo", "mdpo", "lpoi", "adavip", "povid", "ipo", "slic", "rlhfv")
    ),
    Arm("control: sft on chosen", "configs/world_dpo.py", ("recipe=sft",)),
    Arm("control: dpo, shuffled labels", "configs/world_dpo.py", ("data.flip_labels=True",)),
)
# More pairs than a run reads, since those without a verified key object are left out.
_VERIFIED_PAIRS = 7_000
# Ablations, each against the arm before the colon.
ABLATIONS = (
    *(
        Arm(f"lpoi: {name}", "configs/world_lpoi.py", tuple(f"options.lpoi.{o}" for o in options))
        for name, options in {
            "without dpo": ("text_weight=0.0",),
            "without dpo and anchor": ("text_weight=0.0", "anchor_weight=0.0"),
            "without visual prompt": ("visual_prompt=False",),
            "L = 4": ("num_views=4",),
            "L = 5": ("num_views=5",),
        }.items()
    ),
    Arm("lpoi: key object verified", "configs/world_lpoi.py", verified=True),
    *(
        Arm(f"adavip: {name}", "configs/world_adavip.py", (f"options.adavip.weighting={weighting}",))
        for name, weighting in {
            "equal weights": "equal",
            "language only": "text",
            "vision only": "vision",
        }.items()
    ),
)


def run_arm(arm: Arm, seed: int, runs: Path, extra: Sequence[str]) -> None:
    """Trains and evaluates one arm with one seed, or finds that it has been done so."""
    workdir = folder(arm, seed, runs)
    command = [sys.executable, "-m", "vla_jax.train", f"--config={arm.config}", f"--workdir={workdir}"]
    settings = (f"seed={seed}", *arm.overrides, *extra)
    if arm.verified:
        settings = (*settings, *_reading(verified_pairs(arm.config, seed, runs, settings)))
    subprocess.run([*command, *(f"--config.{setting}" for setting in settings)], check=True)


def verified_pairs(config: str, seed: int, runs: Path, settings: Sequence[str]) -> Path:
    """The folder of the world's pairs with verified key objects, packed where it is not there."""
    folder, settings = runs / f"verified-seed{seed}", (*settings, f"data.size={_VERIFIED_PAIRS}")

    def make() -> None:
        asked = configured(config, settings)
        found = str(pack_verified(asked, base_model(asked), folder))
        folder.with_name(f"{folder.name}.txt").write_text(found + "\n")
        print(found)

    return made_once(folder, settings, make)


def _reading(folder: Path) -> tuple[str, ...]:
    """Settings that train on packed pairs of the world."""
    size = default_config().data.size
    return "data.source=packed", f"data.path={folder}", f"data.size={size}", "evaluation.world=True"


def summary_of(arm: Arm, seed: int, runs: Path) -> dict | None:
    """What one arm with one seed came to; None where it is not finished."""
    file = folder(arm, seed, runs) / "summary.json"
    return json.loads(file.read_text()) if file.is_file() else None


def folder(arm: Arm, seed: int, runs: Path) -> Path:
    """Where an arm runs with one seed."""
    name = arm.name.replace(" = ", "").replace(": ", "-").replace(", ", "-").replace(" ", "_")
    return runs / f"{name}-seed{seed}"


def spread_table(results: dict[str, list[dict]]) -> str:
    """Rows of arms, columns of measures: mean ± standard deviation over seeds, where there are several."""
    rows = []
    for name, scores in results.items():
        cells = [mean_and_spread([score[measure] for score in scores]) for measure in _HEADINGS]
        rows.append([name, *cells, str(len(scores))])
    return markdown(["recipe", *_HEADINGS.values(), "seeds"], rows)


def seed_table(summaries: dict[int, dict]) -> str:
    """Rows of seeds, columns of measures: before -> after."""
    rows = [
        [str(seed), *(f"{s['before'][m]:.1f} -> {s['after'][m]:.1f}" for m in _BY_SEED)]
        for seed, s in summaries.items()
    ]
    return markdown([f"{_DEMO}, seed", *(_HEADINGS[measure] for measure in _BY_SEED)], rows)


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
    parser.add_argument("--finished", action="store_true", help="tell of what is finished; train nothing")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]

    results: dict[str, list[dict]] = {_BASE: []}
    demo: dict[int, dict] = {}
    arms = (*ARMS, *ABLATIONS)
    with tqdm(total=len(seeds) * len(arms), desc="table", unit="run") as bar:
        for seed in seeds:
            for arm in arms:
                if not arguments.finished:
                    run_arm(arm, seed, arguments.runs, arguments.set)
                if (summary := summary_of(arm, seed, arguments.runs)) is None:
                    continue
                results.setdefault(arm.name, []).append(summary["after"])
                if arm.name == _DEMO:
                    demo[seed] = summary
                    results[_BASE].append(summary["before"])
                bar.update()
    if not results[_BASE]:
        parser.error(f"no {_DEMO} run is finished in {arguments.runs}; leave --finished out to train them")
    n = results[_BASE][0]
    command = " ".join(["python -m benchmarks.world_table", *sys.argv[1:]])
    note = (
        f"{datetime.date.today()}, seeds {arguments.seeds}: mean ± standard deviation over seeds, in "
        f"percent; {n['n']} unbiased held-out scenes and {n['pope_n']} probes a seed, greedy answers, "
        f"{demo[min(demo)]['steps']} steps of {demo[min(demo)]['batch_size']}. `{command}`"
    )
    recipes = [_BASE, *(arm.name for arm in ARMS)]
    compared = [arm.name for arm in ABLATIONS]
    for ablated in dict.fromkeys(name.partition(":")[0] for name in compared[::-1]):
        compared.insert(next(i for i, name in enumerate(compared) if name.startswith(f"{ablated}:")), ablated)
    tables = [spread_table({name: results[name] for name in recipes if name in results}), seed_table(demo)]
    ablations = spread_table({name: results[name] for name in compared if name in results})
    text = "\n\n".join([*tables, note])
    write_page(_DOCUMENT, f"# Recipes on the built-in world\n\n{text}\n\n## Ablations\n\n{ablations}")
    asked = {name: value for name, value in vars(arguments).items() if name != "finished"}
    complete = all(len(scores) == len(seeds) for scores in results.values()) and len(results) == len(arms) + 1
    if complete and all(value == parser.get_default(name) for name, value in asked.items()):
        write_between_marks(_README, text)
    print(f"\n{text}\n\n{ablations}")


if __name__ == "__main__":
    main()
