"""Kills a run again and again, and compares what it ends with to the run that nothing happened to.

    python -m benchmarks.faults --kills=20        or: make faults

Both train a model of a few thousand parameters with DPO on the built-in world and save every step. One is
killed (SIGKILL) at random moments, a quarter of them before its first step, a quarter as soon as a checkpoint
is being written, and started again with the same command until it is done. Prints each kill, how many fell
into the writing of a checkpoint, and whether the final parameters and the losses of all steps are equal to
the bit; exits 1 where they are not.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 700
SETTINGS = {
    "base.config": "",
    "model.vision.image_size": 36,
    "model.vision.patch_size": 12,
    "model.vision.hidden_size": 16,
    "model.vision.intermediate_size": 32,
    "model.vision.num_layers": 1,
    "model.language.hidden_size": 16,
    "model.language.intermediate_size": 32,
    "model.language.num_layers": 1,
    "train.batch_size": 4,
    "train.steps": STEPS,
    "evaluation.scenes": 0,
    "checkpoint.every": 1,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed, cache = (Path(scratch) / name for name in ("whole", "killed", "cache"))
        subprocess.run(command(whole, cache), check=True, stdout=subprocess.DEVNULL)
        writing = sum(campaign(killed, cache, options.kills, random.Random(options.seed)))
        subprocess.run(command(killed, cache), check=True, stdout=subprocess.DEVNULL)
        same = compare(whole, killed)
    print(f"{options.kills} kills, {writing} of them while a checkpoint was written: {same}")
    sys.exit(same != "equal to the bit")


def command(workdir: Path, cache: Path) -> list[str]:
    """Starts the run, or goes on with it; it compiles once."""
    flags = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    start = [sys.executable, "-m", "vla_jax.train", "--config=configs/world_dpo.py", f"--workdir={workdir}"]
    return [*start, f"--config.compilation_cache={cache}", *flags]


def campaign(workdir: Path, cache: Path, kills: int, dice: random.Random) -> list[bool]:
    """Starts and kills; says of each kill whether a checkpoint was being written."""
    writing = []
    while len(writing) < kills:
        before, left = newest(workdir), unfinished(workdir)
        process = subprocess.Popen(
            command(workdir, cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if len(writing) % 4 == 3:
            wait(process, dice.uniform(0.2, 8))  # while it imports, compiles, restores
        elif len(writing) % 2:
            enough = before + dice.randint(1, 25)
            while process.poll() is None and not (newest(workdir) >= enough and unfinished(workdir) - left):
                time.sleep(0.0005)
        else:
            while process.poll() is None and newest(workdir) <= before:
                time.sleep(0.005)
            wait(process, dice.uniform(0, 4))
        if process.poll() is not None:
            raise SystemExit(
                f"the run ended by itself with {process.returncode} after {len(writing)} kills at step "
                f"{newest(workdir)}: raise STEPS, or look at {workdir}"
            )
        process.send_signal(signal.SIGKILL)
        process.wait()
        writing.append(bool(unfinished(workdir) - left))
        print(
            f"kill {len(writing)} at step {newest(workdir)}{', writing' if writing[-1] else ''}", flush=True
        )
    return writing


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until then, or until the process ends."""
    ends = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < ends:
        time.sleep(0.001)


def newest(workdir: Path) -> int:
    """Step of the newest checkpoint that is whole; -1 before there is one."""
    folder = workdir / "checkpoints"
    return max((int(file.name) for file in folder.glob("*") if file.name.isdigit()), default=-1)


def unfinished(workdir: Path) -> set[str]:
    """Checkpoints that lie there in part, under the names that they have until they are whole."""
    return {file.name for file in (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")}


def compare(whole: Path, killed: Path) -> str:
    """What differs between two finished runs."""
    differ = [name for name in ("model/adapter.safetensors",) if not same_file(whole / name, killed / name)]
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, killed)
    ]
    if losses[0] != losses[1] or len(losses[0]) != STEPS:
        differ.append("losses")
    return f"different: {', '.join(differ)}" if differ else "equal to the bit"


def same_file(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    return one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    main()
