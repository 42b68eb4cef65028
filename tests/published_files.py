"""Published files as tests write them, field by field, and their records read back."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from vla_jax.data.formats import named
from vla_jax.data.published import Published

datasets = pytest.importorskip("datasets")

HEIGHT, WIDTH = 20, 30
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def png(pixels=PIXELS):
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "png")
        return file.getvalue()


def image_folder(tmp_path):
    """A folder with `images/` in it; the test's own files go beside that."""
    (tmp_path / "images" / "coco").mkdir(parents=True)
    for name in ("a.png", "b.png", "coco/000000000009.png"):
        (tmp_path / "images" / name).write_bytes(png())
    return tmp_path


def as_json(folder, rows):
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def as_jsonl(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_parquet(folder, rows):
    path = folder / "rows.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)
    return path


def as_saved(folder, rows):
    datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
    return folder / "saved"


def read(name, path, folder):
    return Published(path, named(name), folder / "images")


def all_of(source):
    return [source[index] for index in range(len(source))]


def embedded(name="a.png"):
    """An image as `datasets` writes it into parquet."""
    return {"bytes": png(), "path": name}


def said(*turns):
    """LLaVA's conversation."""
    speakers = ("human", "gpt")
    return [{"from": speakers[i % 2], "value": words} for i, words in enumerate(turns)]
