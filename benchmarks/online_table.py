"""The methods that learn from what models answer, on the built-in world, over several seeds.

    make online-table        or: python -m benchmarks.online_table --seeds=0,1,2 --runs=runs/online
    python -m benchmarks.online_table --rewards=runs/rewards     # after `make reward-table`: three rows more

Trains every arm on every seed, the sets of made answers, the reward model and the verifier that they need
first, and prints a Markdown table with mean and spread, and one seed by seed. Writes both, dated, to
docs/online_table.md. Stop it whenever you like: what is finished is kept, and the same command goes on with
the rest; with `--finished` it only tells of what there is, and of how many seeds each row stands on.
"""

import argparse
import datetime
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.configured import made_once
from benchmarks.reward_table import workdir_of
from benchmarks.tables import markdown, write_page
from benchmarks.world_table import Arm, run_arm, spread_table, summary_of

_DOCUMENT = Path("docs/online_table.md")
_BASE, _BY_SEED = "base (sft)", ("chair_s", "recall", "pope_f1")
# Answers are made of as many records as a run reads.
_RECORDS = 6_400
_MAKER = "configs/world_bdhs_online.py"
_NOISE = ("options.bdhs.threshold=0.0", "options.bdhs.noise_step=500")
# The reward table's model that knows the policy's own answers.
_OTHER_REWARDS = "swapped noun + own answer"


@dataclass(frozen=True)
class Made:
    """A row that trains on answers made beforehand.

    Attributes:
      arm: the row.
      making: settings under which the answers are made.
    """

    arm: Arm
    making: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rewarded:
    """A row that learns from a reward model of the reward table.

    Attributes:
      arm: the row.
    """

    arm: Arm


Row = Arm | Made | Rewarded
ROWS: tuple[Row, ...] = (
    Made(Arm("bdhs, offline", "configs/world_bdhs.py")),
    Made(Arm("bdhs, noise, offline", "configs/world_bdhs.py"), _NOISE),
    *(
        Arm(name, f"configs/world_{config}.py")
        for name, config in {
            "bdhs, online": "bdhs_online",
            "povid": "povid",
            "best of n": "best_of_n",
            "online dpo": "online_dpo",
            "mixed dpo": "mixed_dpo",
            "rloo": "rloo",
            "ppo": "ppo",
            "fisao": "fisao",
        }.items()
    ),
)
OTHER_REWARDS: tuple[Row, ...] = tuple(
    Rewarded(Arm(f"{name}, other rewards", f"configs/world_{config}.py", ("rewards.config=",)))
    for name, config in {"best of n": "best_of_n", "rloo": "rloo", "ppo": "ppo"}.items()
)


def train(row: Row, seed: int, runs: Path, extra: Sequence[str], rewards: Path | None = None) -> None:
    """Trains and evaluates one row with one seed, unless it has been done.

    Args:
      row: what is trained.
      seed: of everything.
      runs: where runs lie.
      extra: settings of every row.
      rewards: where the reward table's runs lie; needed by `Rewarded` rows.
    """
    arm = arm_of(row)
    if summary_of(arm, seed, runs) is not None:
        return
    reads: tuple[str, ...] = ()
    if isinstance(row, Made):
        folder = runs / f"{arm.name.replace(', ', '-')}-set-seed{seed}"
        settings = (f"seed={seed}", f"data.size={_RECORDS}", *row.making, *extra)
        command = [sys.executable, "-m", "vla_jax.construct", "bdhs", f"--config={_MAKER}", f"--to={folder}"]
        command += [f"--config.{setting}" for setting in settings]
        made_once(folder, settings, lambda: subprocess.run(command, check=True))
        reads = (f"data.path={folder}",)
    elif isinstance(row, Rewarded):
        assert rewards is not None
        reads = (f"rewards.model={workdir_of(_OTHER_REWARDS, seed, rewards) / 'model'}",)
    run_arm(arm, seed, runs, [*extra, *reads])


def arm_of(row: Row) -> Arm:
    """What a row trains."""
    return row if isinstance(row, Arm) else row.arm


def seed_table(summaries: Mapping[str, Mapping[int, dict]]) -> str:
    """Rows of arms, a column a seed: CHAIR_s, recall and POPE F1 after training."""
    seeds = sorted({seed for each in summaries.values() for seed in each})
    rows = [
        [
            name,
            *(" / ".join(f"{each[seed][m]:.0f}" for m in _BY_SEED) if seed in each else "" for seed in seeds),
        ]
        for name, each in summaries.items()
    ]
    return markdown(["CHAIR_s / recall / POPE F1", *(f"seed {seed}" for seed in seeds)], rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs/online"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override in every arm")
    parser.add_argument(
        "--rewards",
        type=Path,
        metavar="DIR",
        help="runs of the reward table, whose model some more rows take",
    )
    parser.add_argument("--finished", action="store_true", help="tell of what is finished; train nothing")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]

    rows = (*ROWS, *(OTHER_REWARDS if arguments.rewards else ()))
    found: dict[str, dict[int, dict]] = {_BASE: {}}
    steps: dict[str, str] = {}
    with tqdm(total=len(seeds) * len(rows), desc="online table", unit="run") as bar:
        for seed in seeds:
            for row in rows:
                arm = arm_of(row)
                if not arguments.finished:
                    train(row, seed, arguments.runs, arguments.set, arguments.rewards)
                if (summary := summary_of(arm, seed, arguments.runs)) is None:
                    continue
                if "before" in summary:
                    found[_BASE].setdefault(seed, summary["before"])
                found.setdefault(arm.name, {})[seed] = summary["after"]
                steps[arm.name] = f"{arm.name} {summary['steps']} of {summary['batch_size']}"
                bar.update()
    if not found[_BASE]:
        parser.error(f"no run is finished in {arguments.runs}; leave --finished out to train them")
    scores = next(iter(found[_BASE].values()))
    command = " ".join(["python -m benchmarks.online_table", *sys.argv[1:]])
    note = (
        f"{datetime.date.today()}, seeds {arguments.seeds}: mean ± standard deviation over seeds, in "
        f"percent; {scores['n']} unbiased held-out scenes and {scores['pope_n']} probes a seed, greedy "
        f"answers. Steps: {', '.join(steps.values())}. `{command}`"
    )
    whole = spread_table({name: list(each.values()) for name, each in found.items()})
    text = "\n\n".join([whole, seed_table(found), note])
    write_page(_DOCUMENT, f"# Methods that learn from answers, on the built-in world\n\n{text}")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
