"""Reward models learnt from pairs that were made in different ways, each asked about the pairs of all.

    python -m benchmarks.reward_table --seeds=0,1,2 --runs=runs/rewards      or: make reward-table

Prints how often a reward model prefers the chosen answer of held-out pairs: rows say what it was trained on,
columns what it was asked about, mean and spread over seeds; and the first row seed by seed. Writes both,
dated, to docs/reward_table.md. Stop it whenever you like: what is finished is kept, and the same command goes
on with the rest; with `--finished` it only tells of what there is, and of how many seeds each row stands on.

The sets are `benchmarks.pair_sets.SETS`; a line there is a row and a column here. The last row is trained on
two of them. Source of the comparison: the alignment study, section 5.5 and Table 7.
"""

import argparse
import copy
import datetime
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from benchmarks.configured import configured, made_once
from benchmarks.pair_sets import SETS
from benchmarks.tables import markdown, mean_and_spread, write_page
from vla_jax.data.packing import pack
from vla_jax.interop import load_model
from vla_jax.training.assembly import assemble
from vla_jax.training.configuration import default_config

_CONFIG = "configs/world_reward_model.py"
_DOCUMENT = Path("docs/reward_table.md")
_TRAINED, _HELD_OUT = range(6_400), range(6_400, 6_912)
_STEPS = 400
# Trained on so many pairs of each, and asked about no pairs of its own.
_TOGETHER = ("swapped noun", "own answer")


def settings(seed: int, extra: Sequence[str]) -> list[str]:
    """What every run of a seed is configured with, as `a.b=c`; a size of the world says nothing of files."""
    size = f"data.size={default_config().data.size}"
    return [f"seed={seed}", f"train.steps={_STEPS}", "data.max_completion_length=32", size, *extra]


def packed(name: str, seed: int, config: ConfigDict, runs: Path, extra: Sequence[str]) -> Path:
    """The folder of a set's pairs, `train` and `held_out`, made where it is not there."""
    folder = runs / f"pairs-seed{seed}" / _slug(name)
    folder.mkdir(parents=True, exist_ok=True)
    for part, places in (("train", _TRAINED), ("held_out", _HELD_OUT)):
        make = partial(pack, SETS[name](config, places), folder / part)
        made_once(folder / part, settings(seed, extra), make)
    return folder


def train(name: str, parts: Sequence[Path], seed: int, runs: Path, extra: Sequence[str]) -> Path:
    """Trains a reward model on one set or on several alike, or finds that it has been; returns its folder."""
    workdir = workdir_of(name, seed, runs)
    files = [str(part / "train") for part in parts]
    if len(files) == 1:
        data = ["data.source=packed", f"data.path={files[0]}"]
    else:
        mixed = tuple({"source": "packed", "path": file, "weight": 1.0} for file in files)
        data = ["data.source=mixture", f"data.mixture={mixed}"]
    command = [sys.executable, "-m", "vla_jax.train", f"--config={_CONFIG}", f"--workdir={workdir}"]
    flags = [f"--config.{setting}" for setting in (*settings(seed, extra), *data)]
    subprocess.run([*command, *flags], check=True)
    return workdir


def asked(workdir: Path, sets: Mapping[str, Path], config: ConfigDict) -> dict[str, float]:
    """How often, in percent, a reward model prefers the chosen answer, by set; kept beside it."""
    config = copy.deepcopy(config)
    file = workdir / "held_out_pairs.json"
    shares = json.loads(file.read_text()) if file.is_file() else {}
    model = load_model(workdir) if shares.keys() != sets.keys() else None
    for name, folder in sets.items():
        if name in shares or model is None:
            continue
        config.data.source, config.data.path = "packed", str(folder / "train")
        config.evaluation.every, config.evaluation.path = 1, str(folder / "held_out")
        config.evaluation.records = len(_HELD_OUT)
        config.data.preflight = 1
        figures = assemble(config, model).held_out_metrics()
        shares[name] = 100 * figures["eval_rewards/accuracies"]
        file.write_text(json.dumps(shares, indent=2) + "\n")
    return {name: shares[name] for name in sets}


def kept(name: str, seed: int, runs: Path) -> dict[str, float] | None:
    """What a finished reward model prefers, by set; None where it is not finished."""
    file = workdir_of(name, seed, runs) / "held_out_pairs.json"
    shares = json.loads(file.read_text()) if file.is_file() else {}
    return {name: shares[name] for name in SETS} if shares.keys() >= SETS.keys() else None


def cross_table(results: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Rows of what was trained on, columns of what was asked about."""
    rows = [
        [name, *(mean_and_spread([shares[column] for shares in seeds]) for column in SETS), str(len(seeds))]
        for name, seeds in results.items()
    ]
    return markdown(["trained on \\ asked about", *SETS, "seeds"], rows)


def seed_table(name: str, by_seed: Mapping[int, Mapping[str, float]]) -> str:
    """The figures of one row, seed by seed."""
    rows = [[str(seed), *(f"{shares[column]:.1f}" for column in SETS)] for seed, shares in by_seed.items()]
    return markdown([f"{name}, seed", *SETS], rows)


def workdir_of(name: str, seed: int, runs: Path) -> Path:
    """Where the reward model of a row is trained with one seed."""
    return runs / f"{_slug(name)}-seed{seed}"


def _slug(name: str) -> str:
    return name.replace(" + ", "-and-").replace("/", "-").replace(" ", "_")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs/rewards"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override in every run")
    parser.add_argument("--finished", action="store_true", help="tell of what is finished; train nothing")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]

    rows = {**{name: (name,) for name in SETS}, " + ".join(_TOGETHER): _TOGETHER}
    results: dict[str, dict[int, dict[str, float]]] = {name: {} for name in rows}
    with tqdm(total=len(seeds) * len(rows), desc="rewards", unit="run") as bar:
        for seed in seeds:
            config, sets = configured(_CONFIG, settings(seed, arguments.set)), {}
            if not arguments.finished:
                sets = {name: packed(name, seed, config, arguments.runs, arguments.set) for name in SETS}
            for name, parts in rows.items():
                if sets:
                    files = [sets[part] for part in parts]
                    asked(train(name, files, seed, arguments.runs, arguments.set), sets, config)
                if (shares := kept(name, seed, arguments.runs)) is not None:
                    results[name][seed] = shares
                    bar.update()
    results = {name: by_seed for name, by_seed in results.items() if by_seed}
    if not results:
        parser.error(f"no run is finished in {arguments.runs}; leave --finished out to train them")
    command = " ".join(["python -m benchmarks.reward_table", *sys.argv[1:]])
    note = (
        f"{datetime.date.today()}, seeds {arguments.seeds}: how often the chosen answer of a held-out pair "
        "has the greater reward, in percent, mean ± standard deviation over seeds; "
        f"{config.train.steps} steps of {config.train.batch_size}, at most {len(_TRAINED)} pairs to learn "
        f"and {len(_HELD_OUT)} held out. `{command}`"
    )
    first = next(iter(results))
    by_row = cross_table({name: list(by_seed.values()) for name, by_seed in results.items()})
    text = f"{by_row}\n\n{seed_table(first, results[first])}\n\n{note}"
    write_page(_DOCUMENT, f"# Reward models on the built-in world\n\n{text}")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
