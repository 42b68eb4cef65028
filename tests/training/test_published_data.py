"""Training from published files: records without an image or with several, mixtures, worker processes."""

import numpy as np
import pytest

from tests.published_files import as_jsonl, image_folder
from tests.small_models import tiny_model
from vla_jax.training.assembly import assemble
from vla_jax.training.configuration import check, default_config
from vla_jax.training.tracking import read_metrics

MODEL = tiny_model(vision={"image_size": 36})


def message(role, text, images=0):
    return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


def row(number, images):
    """A TRL row with so many images; every other one has turns before its question."""
    before = [message("user", "Who?", images), message("assistant", "Me.")] if number % 2 else []
    asked = message("user", f"What is {number}?", 0 if before else images)
    return {
        "images": ["a.png", "b.png"][:images],
        "prompt": [*before, asked],
        "chosen": [message("assistant", "A cat.")],
        "rejected": [message("assistant", "A dog and a hat.")],
    }


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


def configured(**changes):
    config = default_config()
    config.recipe = "dpo"
    config.data.max_completion_length = 24
    config.lora.rank = 2
    config.train.steps = 3
    config.train.batch_size = 6
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_ratio = 0.0
    config.update_from_flattened_dict(changes)
    check(config)
    return config


def losses(config, workdir):
    assemble(config, MODEL).train(workdir, "train")
    return [metrics["loss"] for metrics in read_metrics(workdir / "metrics.jsonl")]


def from_rows(folder, counts, **changes):
    path = as_jsonl(folder, [row(number, images) for number, images in enumerate(counts)])
    data = {"data.source": "trl", "data.path": str(path), "data.images": str(folder / "images")}
    return configured(**data, **{"data.max_prompt_length": 80, **changes})


def test_rows_with_no_image_one_and_two_train_in_one_batch(folder):
    made = losses(from_rows(folder, [0, 1, 2, 0, 1, 2], **{"data.max_images": 2}), folder / "run")
    assert made[0] == pytest.approx(np.log(2), abs=1e-6)
    assert np.isfinite(made).all() and made[-1] < made[0]


def test_a_row_without_an_image_is_what_it_is_whatever_stands_in_the_pictures_place(folder):
    """Nothing of the black image that fills its place may reach the text."""
    run = assemble(from_rows(folder, [0] * 6), MODEL)
    batch = next(run.open_batches(0))
    method, painted = run.method(), np.random.default_rng(0).integers(0, 256, batch.images.shape, np.uint8)
    black, colourful = (
        np.asarray(method.reference_scores(MODEL.params, batch._replace(images=images)).tokens)
        for images in (batch.images, painted)
    )
    np.testing.assert_array_equal(black, colourful)


def test_recipes_that_compare_images_refuse_files_without_any(folder):
    with pytest.raises(ValueError, match="'lpoi' compares images, and no record that was read has one"):
        assemble(from_rows(folder, [0, 0], **{"recipe": "lpoi"}), MODEL)
    with pytest.raises(ValueError, match="'lpoi' makes views of the one image of a record"):
        assemble(from_rows(folder, [1, 1], **{"recipe": "lpoi", "data.max_images": 2}), MODEL)


def test_a_mixture_trains_and_its_workers_change_nothing(folder):
    first = as_jsonl(folder, [row(number, 1) for number in range(5)])
    pairs = [{"img_path": "b.png", "prompt": "Why?", "chosen": "So.", "rejected": "No."}] * 4
    (folder / "more").mkdir()
    second = as_jsonl(folder / "more", pairs)
    images = str(folder / "images")
    mixture = (
        {"source": "trl", "path": str(first), "images": images},
        {"source": "mdpo", "path": str(second), "images": images, "weight": 15},
    )
    config = configured(**{"data.source": "mixture", "data.mixture": mixture})
    expected = losses(config, folder / "run")
    assert np.isfinite(expected).all()
    with config.unlocked():
        config.data.workers = 2
    assert losses(config, folder / "again") == expected
    plan = assemble(config, MODEL).plan
    read = np.concatenate([plan.indices(step) for step in range(200)])
    assert np.mean(read >= 5) == pytest.approx(0.75, abs=0.02)
