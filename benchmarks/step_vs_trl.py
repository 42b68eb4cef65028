"""A training step of TRL's `DPOTrainer` against ours: same checkpoint, adapter, records, optimizer.

    python -m benchmarks.step_vs_trl                          # both; its last lines are the two ratios
    python -m benchmarks.step_vs_trl --huge-pages             # memory in huge pages, for every side
    python -m benchmarks.step_vs_trl --skip-trl --steps=3     # ours alone, to tune it

A LLaVA of 63 million parameters with random weights reads 576 image tokens, a prompt of about 60 and answers
of 90 to 180; LoRA of rank 8 on every linear layer of the language model, 2 pairs a step, float32, two cores.
Each side has a process of its own and waits while another works; the order changes from round to round. A
turn is two steps, of which the second counts: what waited must first get back its place in caches and memory,
which no training run has to at every step. Only steps are timed, on batches that are there before: losses,
gradients, clipping, optimizer. TRL runs twice: as it comes, with gradient checkpointing, and without, which
is faster and takes more memory. The ratios at the end are to TRL as it comes; those to the other stand above
them. Each side has its memory as its trainer has it: ours keeps what it frees, in huge pages; TRL's has those
where they are asked for.

Asserted: all read the same ids, have the same losses at step 0, and rewards within 1 % of each other after
three steps, when each has moved past 0.05. Printed: those figures, the share of the machine's peak in float32
matrix products that our step reaches (its program's products, padding included), the most memory that each
process held, compiling included, and what a virtual machine's host took of it.

Needs PyTorch and `trl==1.16.*`. Goals on two cores: `online` (the reference is computed in the step, by both)
at least 4, `cached` (ours has it from before; TRL refuses that where there are images) at least 5.5.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.step_inputs import Ready, Settings, Step

CORES = 2
COMPARED_AFTER = 3  # steps, which are the warm-up too
TURN = 2  # steps, the last of which counts
# How far a side may be from the first, relatively, and how far rewards must have moved to be compared.
AT_STEP_0, OF_REWARDS, MOVED = 1e-5, 0.01, 0.05
TRL, FASTER_TRL, ONLINE, CACHED = "TRL", "TRL without checkpointing", "online", "cached"
# Spares a step hundreds of thousands of page faults (docs/engine.md). Linux with glibc only.
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def main() -> None:
    """Command line."""
    options = _options()
    cache = Path(options.cache)
    checkpoint = cache / "checkpoint"
    if not checkpoint.is_dir():
        print(f"making {checkpoint}")
        subprocess.run([sys.executable, "-m", "benchmarks.step_checkpoint", str(checkpoint)], check=True)
    if options.huge_pages:
        os.environ["GLIBC_TUNABLES"] = HUGE_PAGES
    settings = Settings(checkpoint, cache / "adapter", COMPARED_AFTER + TURN * options.steps)
    shutil.rmtree(settings.adapter, ignore_errors=True)
    sides = [TRL, FASTER_TRL] * (not options.skip_trl) + [ONLINE] + [CACHED] * (not options.skip_cached)
    with ExitStack() as stack:
        # One after the other: the first writes the adapter that the others read.
        workers = {side: stack.enter_context(Worker(side, settings)) for side in sides}
        compare_reads({side: worker.ready for side, worker in workers.items()})
        timed, peaks = take_steps(workers, options.steps)
        memory = {side: worker.last() for side, worker in workers.items()}
    report(timed, {side: worker.ready for side, worker in workers.items()}, memory, peaks)


class Worker:
    """One side in a process of its own; `with` it, it is ready."""

    def __init__(self, side: str, settings: Settings):
        self.side = side
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(side, theirs, settings), daemon=True)
        self.process.start()
        theirs.close()
        self.ready: Ready = self.last()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: Any) -> None:
        self.connection.close()
        if any(error):
            self.process.terminate()
        self.process.join()

    def ask(self, request: str) -> Any:
        """Its answer to "step", "rewards" or "product"."""
        self.connection.send(request)
        return self.last()

    def last(self) -> Any:
        """What it says next of its own accord.

        Raises:
          SystemExit: where it ended without a word.
        """
        try:
            return self.connection.recv()
        except EOFError:
            raise SystemExit(f"the process of {self.side} ended; what it printed above says why") from None


def compare_reads(ready: Mapping[str, Ready]) -> None:
    """Says what is read, and asserts that every side reads the same.

    Raises:
      SystemExit: where ids differ; says where.
    """
    (first, expected), *others = ready.items()
    for side, other in others:
        for step, (ours, theirs) in enumerate(zip(other.reads, expected.reads, strict=True)):
            if ours != theirs:
                raise SystemExit(f"{side} reads other ids than {first} in step {step}: {ours} {theirs}")
    pairs = [pair for batch in expected.reads for pair in batch]
    prompts = [len(pair[0].ids) - pair[0].scored for pair in pairs]
    answers = [read.scored for pair in pairs for read in pair]
    counts = ", ".join(f"{each.parameters:,} parameters for {side}" for side, each in ready.items())
    print(
        f"{counts}\n{len(pairs)} pairs: prompts of {min(prompts)} to {max(prompts)} ids, the image's among "
        f"them, answers of {min(answers)} to {max(answers)}; the same ids on every side"
    )


def take_steps(workers: Mapping[str, Worker], rounds: int) -> tuple[dict[str, list[Step]], list[float]]:
    """The steps that count of every side, and what the machine could do (FLOP/s) in each round.

    Before them, losses and rewards are compared.

    Raises:
      SystemExit: where they differ, or rewards have not moved.
    """
    warmed = {side: [worker.ask("step") for _ in range(COMPARED_AFTER)] for side, worker in workers.items()}
    for name in ("loss", "logps/chosen", "logps/rejected"):
        values = {side: steps[0].metrics[name] for side, steps in warmed.items()}
        compare(f"{name} at step 0", values, AT_STEP_0)
    rewards = {side: worker.ask("rewards") for side, worker in workers.items()}
    compare(f"rewards after {COMPARED_AFTER} steps, pair by pair, chosen and rejected", rewards, OF_REWARDS)
    if min(float(np.abs(each).min()) for each in rewards.values()) < MOVED:
        raise SystemExit(f"rewards have not moved past {MOVED}: that they agree says nothing")

    counted: dict[str, list[Step]] = {side: [] for side in workers}
    peaks, sides = [], list(workers)
    for number in range(rounds):
        before = stolen_seconds()
        peaks.append(workers[ONLINE].ask("product"))
        first = number % len(sides)
        for side in sides[first:] + sides[:first]:
            counted[side].append([workers[side].ask("step") for _ in range(TURN)][-1])
        line = ", ".join(f"{side} {counted[side][-1].seconds:.2f} s" for side in sides)
        stolen = stolen_seconds() - before
        print(
            f"round {number}: {line} (peak {peaks[-1] / 1e9:.0f} GFLOP/s, {stolen:.1f} s stolen)", flush=True
        )
    return counted, peaks


def stolen_seconds() -> float:
    """Processor time that the host of this virtual machine kept to itself so far; 0 where nothing tells."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def compare(what: str, values: Mapping[str, Any], tolerance: float) -> None:
    """Prints values side by side, with the largest relative difference of any from the first.

    Raises:
      SystemExit: where it is above the tolerance.
    """
    arrays = {side: np.ravel(value) for side, value in values.items()}
    (_, expected), *others = arrays.items()
    line = "; ".join(
        f"{side} {' '.join(f'{value:.6g}' for value in array)}" for side, array in arrays.items()
    )
    apart = max((float(np.max(np.abs(array / expected - 1))) for _, array in others), default=0.0)
    print(f"{what}: {line}; at most {apart:.1e} apart")
    if not apart <= tolerance:
        raise SystemExit(f"{what}: the sides are {apart:.1e} apart, more than {tolerance:.0e}")


def report(
    steps: Mapping[str, Sequence[Step]],
    ready: Mapping[str, Ready],
    memory: Mapping[str, int],
    peaks: Sequence[float],
) -> None:
    """Prints what came out, the ratios last."""
    peak = max(peaks)
    print(
        f"peak of this machine: {peak / 1e9:.0f} GFLOP/s in a float32 matrix product under JAX; at least "
        f"{min(peaks) / 1e9:.0f} in every round (far less means that it was busy with something else)"
    )
    timed = {side: [step.seconds for step in taken] for side, taken in steps.items()}
    for side, seconds in timed.items():
        line = f"{side}: {median(seconds):.2f} s a step ({min(seconds):.2f} to {max(seconds):.2f})"
        if ready[side].flops:
            flops = ready[side].flops[COMPARED_AFTER + TURN - 1 :: TURN]
            rates = [count / s for count, s in zip(flops, seconds, strict=True)]
            line += f", {median(rates) / 1e9:.0f} GFLOP/s, {median(rates) / peak:.0%} of the peak"
        if ready[side].compile_seconds:
            line += f"; compiled in {ready[side].compile_seconds:.0f} s"
        print(
            f"{line}; {ready[side].prepare_seconds:.2f} s to make a batch, not counted; at most "
            f"{memory[side] / 2**30:.2f} GiB held, {ready[side].bytes / 2**30:.2f} before any computation"
        )
    for peer, title in ((FASTER_TRL, f"to {FASTER_TRL}: ratio"), (TRL, "ratio")):
        for side in (ONLINE, CACHED):
            if peer in timed and side in timed:
                ratio = median(theirs / ours for theirs, ours in zip(timed[peer], timed[side], strict=True))
                print(f"{title} {side} {ratio:.2f}")


def _serve(side: str, connection: Connection, settings: Settings) -> None:
    """Runs in the side's own process. Frameworks are imported there only: neither sees the other."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    if side in (TRL, FASTER_TRL):
        from benchmarks.step_of_trl import serve

        serve(connection, replace(settings, gradient_checkpointing=side == TRL))
    else:
        from benchmarks.step_of_ours import serve as serve_ours
        from vla_jax.host_memory import keep_freed_memory

        # As our trainer does.
        keep_freed_memory()
        serve_ours(connection, settings, cached=side == CACHED)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each side")
    parser.add_argument("--cache", default="runs/step_vs_trl", help="where the checkpoint is kept")
    parser.add_argument("--skip-trl", action="store_true", help="ours alone")
    parser.add_argument("--skip-cached", action="store_true", help="only with the reference in the step")
    parser.add_argument("--huge-pages", action="store_true", help="for every side (Linux with glibc)")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error("at least 1 step is needed")
    return options


if __name__ == "__main__":
    main()
