"""Question, chosen, rejected: RLHF-V, RLAIF-V, mDPO and LPOI."""

import json

import numpy as np
import pytest

from tests.published_files import (
    PIXELS,
    all_of,
    as_json,
    as_parquet,
    as_saved,
    datasets,
    embedded,
    image_folder,
    read,
)
from vla_jax.data import CHOSEN, REJECTED, DataError, Turn


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


@pytest.mark.parametrize("write", [as_parquet, as_saved])
def test_rlhf_v_hides_its_texts_in_json(folder, write):
    texts = {"question": "What is it?", "chosen": 'A "cat".', "rejected": "A dog."}
    row = {
        "ds_name": "RLHF-V",
        "image": embedded(),
        "text": json.dumps(texts),
        "origin_dataset": "COCO",
        "origin_split": json.dumps({"model": "muffin", "type": "detailed_description"}),
        "idx": 0,
        "image_path": "images/a.png",
    }
    (record,) = all_of(read("rlhf_v", write(folder, [row]), folder))
    assert record.question == "What is it?"
    assert record.responses == {CHOSEN: 'A "cat".', REJECTED: "A dog."}
    np.testing.assert_array_equal(record.image, PIXELS)


@pytest.mark.parametrize("text, problem", [("{", "'text' that is not valid"), ("[]", "is no JSON object")])
def test_rlhf_v_with_broken_json_is_refused(folder, text, problem):
    with pytest.raises(DataError, match=f"row 0: .*{problem}"):
        read("rlhf_v", as_json(folder, [{"image": "a.png", "text": text}]), folder)[0]


def test_rlaif_v_lies_in_shards(folder):
    rows = [
        {
            "ds_name": "RLAIF-V",
            "image": embedded(),
            "question": f"What is {i}?",
            "chosen": "A cat.",
            "rejected": "A dog.",
            "origin_dataset": "LVIS",
            "origin_split": "{}",
            "idx": str(i),
            "image_path": "images/a.png",
        }
        for i in range(5)
    ]
    (folder / "shards").mkdir()
    for shard, part in enumerate((rows[:3], rows[3:])):
        datasets.Dataset.from_list(part).to_parquet(folder / "shards" / f"RLAIF-V-Dataset_{shard:03}.parquet")
    records = all_of(read("rlaif_v", folder / "shards", folder))
    assert [record.question for record in records] == [f"What is {i}?" for i in range(5)]
    assert all(record.responses == {CHOSEN: "A cat.", REJECTED: "A dog."} for record in records)
    np.testing.assert_array_equal(records[4].image, PIXELS)


SYSTEM = "A chat between a curious user and an assistant."


@pytest.mark.parametrize(
    "prompt, history, question",
    [
        ("<image>\nWhat is it?", (), "What is it?"),
        ("USER: <image>\nWhat is it? ASSISTANT:", (), "What is it?"),
        (f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:", (), "What is it?"),
        ("USER: <image>\nWho? ASSISTANT: A cat.</s>USER: Why? ASSISTANT:", (Turn("Who?", "A cat."),), "Why?"),
    ],
)
def test_mdpos_and_lpois_prompts_are_laid_out_already(folder, prompt, history, question):
    row = {"img_path": "a.png", "prompt": prompt, "chosen": "A cat.", "rejected": "A dog."}
    (record,) = all_of(read("mdpo", as_json(folder, [row]), folder))
    assert (record.history, record.question) == (history, question)
    assert record.responses == {CHOSEN: "A cat.", REJECTED: "A dog."}
    np.testing.assert_array_equal(record.image, PIXELS)
