"""What TRL reads, in every style that its documentation names."""

import numpy as np
import pytest

from tests.published_files import (
    PIXELS,
    all_of,
    as_json,
    as_jsonl,
    as_parquet,
    as_saved,
    embedded,
    image_folder,
    read,
)
from vla_jax.data import CHOSEN, REJECTED, DataError, Turn


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


def user(*parts):
    return {"role": "user", "content": list(parts)}


def assistant(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


SHOWN, ASKED = {"type": "image"}, {"type": "text", "text": "What is it?"}
ANSWERS = {"chosen": [assistant("A cat.")], "rejected": [assistant("A dog.")]}
TRL = {
    "standard": {"prompt": "What is it?", "chosen": "A cat.", "rejected": "A dog.", "images": ["a.png"]},
    "placeholder": {
        "prompt": "<image>What is it?",
        "chosen": "A cat.",
        "rejected": "A dog.",
        "image": "a.png",
    },
    "parts": {"prompt": [user(SHOWN, ASKED)], "images": ["a.png"]} | ANSWERS,
    "image last": {"prompt": [user(ASKED, SHOWN)], "images": ["a.png"]} | ANSWERS,
    "plain content": {
        "prompt": [{"role": "user", "content": "What is it?"}],
        "chosen": [{"role": "assistant", "content": "A cat."}],
        "rejected": [{"role": "assistant", "content": "A dog."}],
        "images": ["a.png"],
    },
    "implicit prompt": {
        "chosen": [user(SHOWN, ASKED), assistant("A cat.")],
        "rejected": [user(SHOWN, ASKED), assistant("A dog.")],
        "images": ["a.png"],
    },
}


@pytest.mark.parametrize("case", TRL)
@pytest.mark.parametrize("write", [as_json, as_jsonl])
def test_every_trl_style_says_the_same(folder, case, write):
    (record,) = all_of(read("trl", write(folder, [TRL[case]]), folder))
    assert (record.question, record.history, record.system) == ("What is it?", (), "")
    assert record.responses == {CHOSEN: "A cat.", REJECTED: "A dog."}
    np.testing.assert_array_equal(record.image, PIXELS)


@pytest.mark.parametrize("write", [as_parquet, as_saved])
def test_trl_style_with_embedded_images(folder, write):
    # Arrow gives every part every field, so that a text part has an image of None, and so on.
    row = {"prompt": [user(SHOWN | {"text": None}, ASKED)], "images": [embedded(), embedded()]} | ANSWERS
    row["prompt"][0]["content"].insert(0, SHOWN | {"text": None})
    (record,) = all_of(read("trl", write(folder, [row]), folder))
    assert record.question == "What is it?" and len(record.images) == 2
    np.testing.assert_array_equal(record.images[1].pixels(), PIXELS)


def test_trl_style_with_a_system_message_earlier_turns_and_no_image(folder):
    prompt = [
        {"role": "system", "content": "Be brief."},
        user(ASKED),
        assistant("A cat."),
        user({**ASKED, "text": "Why?"}),
    ]
    (record,) = all_of(read("trl", as_json(folder, [{"prompt": prompt} | ANSWERS]), folder))
    assert (record.system, record.question, record.images) == ("Be brief.", "Why?", ())
    assert record.history == (Turn("What is it?", "A cat."),)


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"prompt": [user(SHOWN, ASKED)], "images": []}, "1 <image> placeholders for 0 images"),
        ({"prompt": [user(ASKED), assistant("A.")], "images": []}, "'prompt' that is answered already"),
        ({"prompt": [user({"type": "video"}, ASKED)]}, "a part of type 'video'"),
        ({"prompt": 5}, "a 'prompt' that is no text"),
        ({"prompt": "What?", "chosen": [assistant("A."), user(ASKED)]}, "not one message of the assistant"),
        ({"prompt": "What?", "chosen": None}, "has a 'chosen' that is no text"),
    ],
)
def test_trl_style_that_makes_no_sense_is_refused(folder, fields, problem):
    with pytest.raises(DataError, match=problem):
        read("trl", as_json(folder, [ANSWERS | fields]), folder)[0]
