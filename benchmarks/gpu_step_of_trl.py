"""TRL's step of `gpu.py`: `DPOTrainer` in bfloat16 on the same shape, with random weights and the same pairs.

Timed is what the trainer does between `on_step_begin` and `on_step_end`, as in `step_of_trl.py`, and the
device is waited for at both.
"""

import time
from dataclasses import asdict
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from benchmarks.gpu_inputs import WARM_UP, Job, Measured
from benchmarks.step_of_trl import make_trainer


class Timed(TrainerCallback):
    """Seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        _wait()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops it."""
        _wait()
        self.seconds.append(time.perf_counter() - self.started)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Says how it went; the log at the end of the training is of no step."""
        if "loss" in logs:
            number = len(self.seconds) - 1
            print(f"TRL: step {number}, loss {float(logs['loss']):.4f}, {self.seconds[-1]:.3f} s", flush=True)


def main() -> None:
    """Adds a `Measured`, or {out_of_memory} where the device has too little."""
    job = Job.from_command_line()
    transformers.logging.set_verbosity_error()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    timed = Timed()
    started = time.perf_counter()
    trainer = make_trainer(job.settings, timed, random_model(job, device), bf16=True, use_cpu=device == "cpu")
    batch = next(iter(trainer.get_train_dataloader()))
    print(f"TRL: ready in {time.perf_counter() - started:.0f} s", flush=True)
    try:
        trainer.train()
    except torch.cuda.OutOfMemoryError:
        job.say(out_of_memory=True)
        return
    what = f"TRL, {'with' if job.gradient_checkpointing else 'without'} gradient checkpointing"
    most = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    tokens = int(batch["attention_mask"].sum())
    job.say(**asdict(Measured(what, job.pairs, timed.seconds[WARM_UP:], tokens, bytes=most)))


def random_model(job: Job, device: str) -> Any:
    """Drawn where it will be: 14 GB are never on the host."""
    config = transformers.AutoConfig.from_pretrained(job.folder)
    config.name_or_path = job.folder
    with torch.device(device):
        return transformers.AutoModelForImageTextToText.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
