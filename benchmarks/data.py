"""How many preference records a second become batches: ours against PyTorch's DataLoader with PIL.

    make data                                    or: python -m benchmarks.data --workers=0,1,2
    python -m benchmarks.data --photos=DIR       with the JPEG files of a folder

Both read the same JPEG photographs (640 x 480 where none are given), pad them to a square and resize it to
336 x 336, render the same chat template, tokenise prompt and two answers of 90 to 180 words, and pad batches
of 8. Ours gives uint8 images, which are normalised on the device; so does the other side here, which spares
it what its users do on the host. They take turns; starting workers and what they make ahead are not counted.
The last lines are ours over theirs, one for each number of worker processes.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from benchmarks.step_inputs import make_pairs
from vla_jax.data import CHOSEN, REJECTED, BatchPlan, Encoder, batches
from vla_jax.data.formats import named
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.published import Published
from vla_jax.data.tokenizer import train_tokenizer

SIDE, COLOUR = 336, (122, 116, 104)
BATCH, LENGTH, IMAGE_TOKENS = 8, 1024, 576
PHOTOGRAPHS = 32
# More batches than either side prepares ahead with two workers.
AHEAD = 8


def write_photographs(folder: Path) -> list[Path]:
    """JPEG files whose size and detail are those of photographs."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(PHOTOGRAPHS):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (640, 480), Image.BICUBIC
        )
        grain = Image.fromarray(rng.integers(0, 256, (480, 640, 3), np.uint8)).filter(
            ImageFilter.GaussianBlur(1)
        )
        files.append(folder / f"{number}.jpg")
        Image.blend(coarse, grain, 0.35).save(files[-1], quality=90)
    return files


class Photographs(torch.utils.data.Dataset):
    """What a user of PyTorch writes: a row of the file, its image by PIL, its texts by the tokenizer."""

    def __init__(self, rows: Sequence[dict[str, Any]], folder: Path, tokenizer: Any):
        self.rows, self.folder, self.tokenizer = rows, folder, tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        with Image.open(self.folder / row["image"]) as file:
            image = file.convert("RGB")
        side = max(image.size)
        square = Image.new("RGB", (side, side), COLOUR)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        pixels = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["prompt"]}]}
        prompt = self._ids([asked], add_generation_prompt=True)
        whole = [
            self._ids([asked, {"role": "assistant", "content": [{"type": "text", "text": row[role]}]}])
            for role in (CHOSEN, REJECTED)
        ]
        return {"pixels": pixels, "prompt": prompt, "responses": [ids[len(prompt) :] for ids in whole]}

    def _ids(self, messages: Sequence[dict[str, Any]], **options: Any) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def padded(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch with image placeholders expanded, prompts padded on the left, answers on the right."""
    prompts = torch.zeros((len(rows), LENGTH), dtype=torch.int32)
    responses = torch.zeros((len(rows), 2, LENGTH), dtype=torch.int32)
    for place, row in enumerate(rows):
        prompt = row["prompt"][:1] * IMAGE_TOKENS + row["prompt"]
        prompts[place, -len(prompt) :] = torch.tensor(prompt)
        for role, ids in enumerate(row["responses"]):
            responses[place, role, : len(ids)] = torch.tensor(ids)
    pixels = torch.from_numpy(np.stack([row["pixels"] for row in rows]))
    return {"pixels": pixels, "prompts": prompts, "responses": responses}


def rate(loader: Iterator[Any], steps: int) -> float:
    """Records a second, from when what was made ahead is taken to the end of the last batch."""
    for _ in range(AHEAD):
        next(loader)
    started = time.perf_counter()
    made = sum(1 for _ in itertools.islice(loader, steps - AHEAD))
    return made * BATCH / (time.perf_counter() - started)


def main() -> None:
    """Command line."""
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.photos or Path(scratch)
        files = sorted(folder.glob("*.jpg")) if options.photos else write_photographs(folder)
        if not files:
            raise SystemExit(f"error: there is no .jpg file in {folder}")
        pairs = make_pairs(options.steps * BATCH)
        rows = [
            {"image": file.name, "prompt": pair.question, "chosen": pair.chosen, "rejected": pair.rejected}
            for pair, file in zip(pairs, itertools.cycle(files), strict=False)
        ]
        path = Path(scratch) / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        tokenizer = train_tokenizer((row["chosen"] for row in rows), 8000)
        encoder = Encoder(
            tokenizer,
            ImageProcessor.square(SIDE, COLOUR),
            IMAGE_TOKENS,
            (CHOSEN, REJECTED),
            max_prompt_length=LENGTH,
            max_completion_length=LENGTH,
        )
        source, plan = Published(path, named("trl"), folder), BatchPlan(len(rows), BATCH, 0)
        theirs = Photographs(rows, folder, tokenizer)
        for workers in options.workers:
            rates: dict[str, list[float]] = {"ours": [], "PyTorch": []}
            for _ in range(options.rounds):
                ours = batches(source, encoder, plan, stop=options.steps, workers=workers)
                rates["ours"].append(rate(ours, options.steps))
                loader = torch.utils.data.DataLoader(
                    theirs, BATCH, shuffle=True, num_workers=workers, collate_fn=padded
                )
                rates["PyTorch"].append(rate(iter(loader), options.steps))
            medians = {side: statistics.median(values) for side, values in rates.items()}
            spreads = {side: f"{min(values):.0f} to {max(values):.0f}" for side, values in rates.items()}
            said = ", ".join(f"{side} {medians[side]:.0f} records/s ({spreads[side]})" for side in medians)
            print(f"{workers} workers: {said}")
            print(f"ratio with {workers} workers {medians['ours'] / medians['PyTorch']:.2f}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="a folder of .jpg files")
    parser.add_argument("--steps", type=int, default=30, help="batches of 8 a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--workers", type=lambda text: [int(each) for each in text.split(",")], default=[0, 1, 2]
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
