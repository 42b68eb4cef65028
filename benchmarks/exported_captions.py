"""Exports a finished run of the built-in world and lets PyTorch describe the run's held-out scenes: the same
captions as ours, word for word?

    python -m benchmarks.exported_captions --run=runs/demo

Needs PyTorch; the captions compared with are those that the run itself wrote.
"""

import json
import tempfile
from pathlib import Path

import torch
import transformers
from absl import app, flags
from PIL import Image
from tqdm import trange

from vla_jax.convert import export_checkpoint
from vla_jax.evaluate import open_scenes
from vla_jax.interop import load_model
from vla_jax.training.workdir import configuration_of

BATCH = 50


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    run = Path(_RUN.value)
    config = configuration_of(run)
    captions = json.loads((run / "evaluation_after.json").read_text())["captions"]
    model = load_model(run)
    scenes, _ = open_scenes(config, model.config.vision.image_size)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "exported"
        export_checkpoint(run, exported, merge_adapter=model.adapter is not None)
        processor = transformers.AutoProcessor.from_pretrained(exported)
        theirs = transformers.LlavaForConditionalGeneration.from_pretrained(exported).eval()
    processor.tokenizer.padding_side = "left"
    same = 0
    for start in trange(0, len(captions), BATCH):
        records = [scenes[i] for i in range(start, min(start + BATCH, len(captions)))]
        questions = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": record.question}]}]
            for record in records
        ]
        inputs = processor(
            images=[Image.fromarray(record.image) for record in records],
            text=[processor.apply_chat_template(q, add_generation_prompt=True) for q in questions],
            padding=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            longest = config.evaluation.max_new_tokens
            made = theirs.generate(**inputs, max_new_tokens=longest, do_sample=False)
        answers = processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for ours, answer in zip(captions[start:], answers, strict=False):
            same += ours == answer.strip()
            if ours != answer.strip():
                print(f"ours:   {ours}\ntheirs: {answer.strip()}")
    print(f"{same} of {len(captions)} captions are the same")


if __name__ == "__main__":
    _RUN = flags.DEFINE_string("run", "runs/demo", "The workdir of a finished run on the built-in world.")
    app.run(main)
