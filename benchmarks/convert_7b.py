"""Imports and exports a LLaVA-1.5-7B of random bfloat16 weights: time, peak memory, and every bit compared.

    make convert-7b            # or: python -m benchmarks.convert_7b --dir=/large/disk

Needs 45 GB of disk and 16 GB of memory; what it writes is removed at the end.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from absl import app, flags

from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from vla_jax.interop.checkpoint import open_checkpoint
from vla_jax.interop.configs import to_hugging_face
from vla_jax.interop.safetensors_writer import Tensor, write
from vla_jax.interop.weights import tensors
from vla_jax.models import LlavaConfig, llava, parameters

# What the issue of host memory allows beside the parameters and the largest tensor of the checkpoint.
SLACK = 1.5e9


def make_checkpoint(folder: Path) -> int:
    """Writes the checkpoint, one tensor at a time; returns the bytes of its largest tensor."""
    tokenizer = train_tokenizer(["What is in the image?"], 300)
    config = LlavaConfig(image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    table = llava.table(config)
    block = np.random.default_rng(0).standard_normal(2**26, np.float32).astype(ml_dtypes.bfloat16)

    def drawn(tensor: Tensor, start: int) -> Tensor:
        def read() -> np.ndarray:
            # A stretch of the same numbers, another one for every tensor.
            return (
                np.resize(np.roll(block[: 2**20], start), tensor.shape)
                if len(tensor.shape) == 1
                else (
                    np.take(block, np.arange(start, start + int(np.prod(tensor.shape))), mode="wrap").reshape(
                        tensor.shape
                    )
                )
            )

        return tensor._replace(read=read)

    announced = tensors(table, parameters.abstract(table, jnp.bfloat16))
    folder.mkdir(parents=True)
    write(folder, [drawn(tensor, 7919 * i) for i, tensor in enumerate(announced)])
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    described = to_hugging_face(config, dtype="bfloat16", **ids)
    (folder / "config.json").write_text(json.dumps(described))
    vision = config.vision
    processor = ImageProcessor(vision.image_size, (vision.image_size, vision.image_size))
    preprocessor = processor.to_dict(vision.pixel_mean, vision.pixel_std)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    tokenizer.save_pretrained(folder)
    return max(tensor.num_bytes for tensor in announced)


def convert(*arguments: str) -> tuple[float, float]:
    """Runs the command; returns seconds and its peak memory in bytes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "vla_jax.convert", *arguments]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
    print(done.stdout.strip())
    found = re.search(r"peak host memory ([\d.]+) GB", done.stdout)
    assert found is not None
    return time.perf_counter() - start, float(found[1]) * 1e9


def differing(one: Path, other: Path) -> list[str]:
    """Tensors that are not in both folders with the same bits."""
    first, second = open_checkpoint(one), open_checkpoint(other)
    names = first.shapes.keys() | second.shapes.keys()
    both = first.shapes.keys() & second.shapes.keys()
    return sorted(
        name
        for name in names
        if name not in both
        or not np.array_equal(first.read(name).view(np.uint16), second.read(name).view(np.uint16))
    )


def main(argv: list[str]) -> None:
    """Command line."""
    del argv
    root = Path(tempfile.mkdtemp(prefix="convert_7b.", dir=_DIR.value))
    try:
        start = time.perf_counter()
        largest = make_checkpoint(root / "theirs")
        size = sum(file.stat().st_size for file in (root / "theirs").glob("*.safetensors"))
        print(f"wrote {size / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s")
        bound = size + largest + SLACK
        for command, source, to in (("import", "theirs", "ours"), ("export", "ours", "back")):
            seconds, peak = convert(command, f"--from={root / source}", f"--to={root / to}")
            print(
                f"{command}: {seconds:.0f} s, peak {peak / 1e9:.2f} GB, parameters {size / 1e9:.2f} GB; "
                f"bound {bound / 1e9:.2f} GB {'kept' if peak <= bound else 'BROKEN'}"
            )
        changed = differing(root / "theirs", root / "back")
        count = len(open_checkpoint(root / "theirs").shapes)
        print(f"{len(changed)} of {count} tensors differ after the round trip {changed[:5]}")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    _DIR = flags.DEFINE_string("dir", None, "Where there is room; the system's temporary folder by default.")
    app.run(main)
