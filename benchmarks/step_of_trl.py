"""The PyTorch side of `step_vs_trl.py`: TRL's trainer, which takes a step whenever it is asked to.

`DPOTrainer.train()` itself runs; a callback holds it before each step. What is timed is what the trainer does
between `on_step_begin` and `on_step_end`: losses, gradients, clipping, optimizer. The batch is there before.
"""

import time
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import datasets
import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig
from PIL import Image
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from benchmarks.step_inputs import Pair, Read, Ready, Settings, Step, make_pairs, peak_bytes

# The linear layers of the language model's blocks, as `lora.targets` of ours has them by default.
TARGETS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"


class OnRequest(TrainerCallback):
    """Takes a step for each "step", says what the first batch is worth for each "rewards"."""

    def __init__(self, connection: Connection):
        self.connection = connection
        self.trainer: DPOTrainer | None = None
        self.first_batch: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Holds the trainer until a step is asked for."""
        while self.connection.recv() == "rewards":
            self.connection.send(_rewards(self.trainer, self.first_batch))
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops the clock."""
        self.seconds = time.perf_counter() - self.started

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Answers; the log at the end of the training is of no step."""
        if "loss" in logs:
            self.connection.send(Step(self.seconds, logs))


def serve(connection: Connection, settings: Settings) -> None:
    """Sends a `Ready`, an answer to each request, and at the end the most memory that was held."""
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    callback = OnRequest(connection)
    trainer = make_trainer(settings, callback, str(settings.checkpoint), bf16=False, use_cpu=True)
    if settings.adapter.is_dir():
        peft.set_peft_model_state_dict(trainer.model, peft.load_peft_weights(str(settings.adapter)))
    else:
        trainer.model.save_pretrained(settings.adapter)
    batches, seconds = _batches(trainer, settings)
    callback.trainer, callback.first_batch = trainer, batches[0]
    reads = [_reads(batch, settings.pairs) for batch in batches]
    base = sum(weight.numel() for name, weight in trainer.model.named_parameters() if "lora_" not in name)
    connection.send(Ready(base, reads, seconds, peak_bytes()))
    del batches
    trainer.train()
    connection.send(peak_bytes())


def make_trainer(settings: Settings, callback: TrainerCallback, model: Any, **options: Any) -> DPOTrainer:
    """TRL's trainer, which prints nothing by itself.

    Args:
      settings: of the comparison.
      callback: holds it or takes its times.
      model: one of transformers', or a folder.
      options: further ones of `DPOConfig`.
    """
    config = DPOConfig(
        output_dir=str(settings.adapter.parent / "trl"),
        beta=settings.beta,
        max_length=None,
        per_device_train_batch_size=settings.pairs,
        max_steps=settings.steps,
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        adam_epsilon=settings.epsilon,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    trainer = DPOTrainer(
        model=model,
        args=config,
        train_dataset=_dataset(make_pairs(settings.steps * settings.pairs)),
        processing_class=transformers.AutoProcessor.from_pretrained(settings.checkpoint),
        peft_config=LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, target_modules=TARGETS
        ),
        callbacks=[callback],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _dataset(pairs: list[Pair]) -> datasets.Dataset:
    """Conversations with images, as TRL's documentation has them."""
    message = datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")})
    features = {"images": datasets.List(datasets.Image()), "prompt": message}
    return datasets.Dataset.from_list(
        [
            {
                "images": [Image.fromarray(pair.image)],
                "prompt": [{"role": "user", "content": pair.question}],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ],
        features=datasets.Features(features | dict.fromkeys(("chosen", "rejected"), message)),
    )


def _batches(trainer: DPOTrainer, settings: Settings) -> tuple[list[Any], float]:
    """The batches that training will see, and how long one takes to make."""
    batches, seconds = [], []
    loader = iter(trainer.get_train_dataloader())
    for _ in range(settings.steps):
        started = time.perf_counter()
        batches.append(next(loader))
        seconds.append(time.perf_counter() - started)
    return batches, median(seconds)


def _reads(batch: Any, pairs: int) -> list[tuple[Read, Read]]:
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    rows = [
        Read(tuple(ids[row][mask[row]].tolist()), int(batch["completion_mask"][row].sum()))
        for row in range(2 * pairs)
    ]
    return list(zip(rows[:pairs], rows[pairs:], strict=True))


def _rewards(trainer: DPOTrainer, batch: Any) -> np.ndarray:
    """Rewards [pair, chosen or rejected] by the model as it is now, computed as the trainer computes them."""
    inputs = {name: value for name, value in batch.items() if name != "completion_mask"}
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    with torch.no_grad():
        made = trainer.model(**inputs, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        policy = torch.stack(made.sum(dim=1).chunk(2), dim=1)
        reference = torch.stack(trainer.compute_ref_log_probs(trainer.model, batch), dim=1)
    return trainer.beta * (policy - reference).numpy()
