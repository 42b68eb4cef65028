"""On a GPU: parity with the CPU, and speed of a 7B preference step beside TRL's.

    make gpu          or: python -m benchmarks.gpu
    python -m benchmarks.gpu --stages parity dpo --pairs=4
    python -m benchmarks.gpu --small       # tiny shapes on any machine: shows that the code runs, no more

Stages, each in a process of its own, in this order; what one printed stays, however the next one ends:

    parity   losses, gradients and greedy responses of a small LLaVA, GPU = CPU in float32 (`gpu_parity.py`
             has the bounds), and cuDNN's attention beside the plain one in bfloat16
    dpo      DPO of LLaVA-1.5-7B's shape: a frozen bfloat16 base with random weights, a float32 adapter of
             rank 8 on every linear layer of the language model, 576 image tokens, prompts of 60, answers of
             90 to 180 padded to 192, remat by block; the reference in the step (online) and from before
             (cached; here a guess, since only time counts)
    trl      the same pairs, adapter and optimizer in TRL's `DPOTrainer` in bfloat16, as it comes (gradient
             checkpointing, SDPA); then without checkpointing on a quarter of the pairs, which fit
    lpoi     LPOI of five views, the reference in the step, on a quarter of the pairs
    cudnn    DPO online again with cuDNN's attention, where it passed parity
    generate eight responses of 128 tokens to prompts with an image, as in `decode.py`, by our sampler and by
             transformers' `generate`, as it comes and with a static cache, which it compiles for

Where memory does not suffice, a stage is taken again with half the pairs, and the line says how many. MFU is
FLOPs of the step with nothing computed twice, padding included, over time and peak. Ratios are of seconds a
pair, TRL as it comes over ours; to `cached` too, since TRL refuses a reference from before where there are
images. Where a comparison does not agree, or a stage fails, it ends with an error. Without a GPU it says so
and measures nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.decode import report
from benchmarks.gpu_inputs import NEW_TOKENS, Job, Measured

STAGES = ("parity", "dpo", "trl", "lpoi", "cudnn", "generate")
# Dense bfloat16 FLOP/s by the maker's data sheet.
DATA_SHEET = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
OURS, TRL = "benchmarks.gpu_step_of_ours", "benchmarks.gpu_step_of_trl"
SAMPLERS = "benchmarks.gpu_generate_of_ours", "benchmarks.gpu_generate_of_transformers"
# Less than this is not worth a start.
LEAST_SECONDS = 30


def main() -> None:
    """Command line."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        session = Session(options, Path(folder))
        found = session.run("benchmarks.gpu_device", session.job)
        if not found:
            raise SystemExit("no device was found; what is printed above says why")
        device = found[0]
        if device["platform"] != "gpu" and not options.small:
            print(f"no GPU here (JAX finds: {device['platform']} {device['kind']}); nothing was measured")
            return
        if options.small:
            print("--small: shapes that show only that the code runs; the figures mean nothing")
        sheet = next((peak for name, peak in DATA_SHEET.items() if name in device["kind"]), 0.0)
        says = f"{sheet / 1e12:.0f} by the data sheet" if sheet else "no data sheet known"
        print(
            f"{device['kind']}: {device['peak'] / 1e12:.1f} TFLOP/s in a bfloat16 product, {says}", flush=True
        )
        measured = list(take_stages(session, options.stages, device["peak"], sheet))
    for line in ratios(measured):
        print(line)
    if session.failed:
        raise SystemExit(f"error: {', '.join(session.failed)}")


class Session:
    """Runs stages until the time is up.

    Attributes:
      failed: what did not agree, crashed or was stopped.
    """

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.ends = time.monotonic() + options.seconds
        self.failed: list[str] = []
        self.job = Job(
            str(folder / "checkpoint"), options.small, options.pairs, options.steps, remat=options.remat
        )
        # Processes follow each other, so each may have all of the GPU's memory; a kernel tuned in one serves
        # the next.
        self.environment = {
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
            **os.environ,
        }

    def run(self, module: str, job: Job) -> list[dict[str, Any]]:
        """What the stage added, even if it failed or ran out of time, which is said."""
        left = self.ends - time.monotonic()
        if left < LEAST_SECONDS:
            print(f"{module}: skipped, {left:.0f} s are left", flush=True)
            return []
        job.results.write_text("")
        try:
            command = [sys.executable, "-m", module, *job.arguments()]
            ended = subprocess.run(command, env=self.environment, timeout=left)
            if ended.returncode:
                self._fails(f"{module}: FAILED with exit code {ended.returncode}")
        except subprocess.TimeoutExpired:
            self._fails(f"{module}: STOPPED, the time is up")
        return [json.loads(line) for line in job.results.read_text().splitlines()]

    def _fails(self, line: str) -> None:
        print(line, flush=True)
        self.failed.append(line)

    def compare(self, job: Job) -> dict[str, bool]:
        """What was compared -> whether it agrees, each said."""
        agrees = {result["parity"]: result["agrees"] for result in self.run("benchmarks.gpu_parity", job)}
        for name, agree in agrees.items():
            if agree:
                print(f"{name}: agrees", flush=True)
            else:
                self._fails(f"{name}: DOES NOT AGREE")
        return agrees

    def measure(self, module: str, job: Job) -> list[Measured]:
        """The stage's measurements, with fewer pairs where memory does not suffice for all."""
        results = self.run(module, job)
        if any("out_of_memory" in result for result in results) and job.pairs > 1:
            print(f"{module}: out of memory with {job.pairs} pairs; again with {job.pairs // 2}", flush=True)
            return self.measure(module, replace(job, pairs=job.pairs // 2))
        return [Measured(**result) for result in results if "what" in result]


def take_stages(session: Session, stages: Sequence[str], peak: float, sheet: float) -> Iterator[Measured]:
    """Everything measured, each printed at once."""
    fused = False
    few = max(1, session.job.pairs // 4)
    for stage in STAGES:
        if stage not in stages:
            continue
        print(f"--- {stage}", flush=True)
        made: list[Measured] = []
        if stage == "parity":
            agrees = session.compare(replace(session.job, pairs=2, steps=1))
            attentions = [agree for name, agree in agrees.items() if "cudnn" in name]
            fused = bool(attentions) and all(attentions)
        elif stage == "dpo":
            made = session.measure(OURS, replace(session.job, references=("online", "cached")))
        elif stage == "trl":
            made = session.measure(TRL, session.job)
            made += session.measure(TRL, replace(session.job, pairs=few, gradient_checkpointing=False))
        elif stage == "lpoi":
            made = session.measure(OURS, replace(session.job, recipe="lpoi", pairs=few))
        elif stage == "generate":
            for line in responses(*(session.run(sampler, session.job) for sampler in SAMPLERS)):
                print(line, flush=True)
        elif fused:
            made = session.measure(OURS, replace(session.job, attention="cudnn"))
        else:
            print("skipped: cuDNN's attention did not pass parity in this run")
        for each in made:
            print(summary(each, peak, sheet), flush=True)
        yield from made


def responses(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines on each of our samplers beside each of transformers'."""
    for our, their in product(ours, theirs):
        yield f"{our['responses']} beside {their['responses']}:"
        yield from report({**our["taken"], **their["taken"]}, NEW_TOKENS)


def summary(measured: Measured, peak: float, sheet: float) -> str:
    """A line on one measurement; peaks are in FLOP/s, 0 where not known."""
    seconds = median(measured.seconds)
    line = (
        f"{measured.what}: {measured.pairs} pairs, {seconds:.3f} s a step "
        f"({min(measured.seconds):.3f} to {max(measured.seconds):.3f}, {len(measured.seconds)} steps), "
        f"{measured.tokens / seconds:,.0f} tokens/s"
    )
    if measured.flops:
        rate = measured.flops / seconds
        line += f", {rate / 1e12:.1f} TFLOP/s, MFU {rate / peak:.1%} of the measured peak"
        line += f", {rate / sheet:.1%} of the data sheet's" if sheet else ""
    if measured.compile_seconds:
        line += f"; compiled in {measured.compile_seconds:.0f} s"
    return f"{line}; {measured.bytes / 2**30:.1f} GiB"


def ratios(measured: Sequence[Measured]) -> Iterator[str]:
    """Lines on seconds a pair of TRL over ours, those to TRL as it comes last."""

    def seconds_a_pair(start: str, end: str) -> float | None:
        found = [each for each in measured if each.what.startswith(start) and each.what.endswith(end)]
        return median(found[0].seconds) / found[0].pairs if found else None

    for title, theirs in (
        ("to TRL without checkpointing: ratio", seconds_a_pair("TRL", "without gradient checkpointing")),
        ("ratio", seconds_a_pair("TRL", "with gradient checkpointing")),
    ):
        for reference in ("online", "cached"):
            ours = seconds_a_pair(f"dpo, {reference}", "xla attention")
            if theirs and ours:
                yield f"{title} {reference} {theirs / ours:.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="which, default all")
    parser.add_argument("--pairs", type=int, default=8, help="preference pairs a step")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each measurement")
    parser.add_argument("--remat", default="block", help="of our steps (see Compute)")
    parser.add_argument("--seconds", type=float, default=540, help="after which what runs is stopped")
    parser.add_argument("--small", action="store_true", help="tiny shapes on any machine, to try the code")
    options = parser.parse_args()
    if min(options.pairs, options.steps) < 1:
        parser.error("--pairs and --steps are at least 1")
    return options


if __name__ == "__main__":
    main()
