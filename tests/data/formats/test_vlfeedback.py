"""VLFeedback: pairs by mean rating, from either of its published layouts."""

import numpy as np
import pytest

from tests.published_files import (
    PIXELS,
    all_of,
    as_jsonl,
    as_parquet,
    as_saved,
    embedded,
    image_folder,
    read,
)
from vla_jax.data import CHOSEN, REJECTED, DataError


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


def annotation(*ratings):
    aspects = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    return {
        aspect: {"Rating": rating, "Rationale": "Because."}
        for aspect, rating in zip(aspects, ratings, strict=True)
    }


COMPLETIONS = [
    {"model": "qwen", "response": "Best.", "annotations": annotation("5", "5", "5")},
    {"model": "llava", "response": "Middle.", "annotations": annotation("4", "3", "5")},
    {"model": "gpt4v", "response": "Also middle.", "annotations": annotation("3", "4", "5")},
    {"model": "fuyu", "response": "Unrated.", "annotations": annotation("N/A", "4", "5")},
]
VLFEEDBACK = {
    "id": "svit-1",
    "prompt": "What is it?",
    "models": ["qwen", "llava", "gpt4v", "fuyu"],
    "img_path": "a.png",
    "completions": COMPLETIONS,
}


def columns(completions):
    """A list of completions as the parquet shards have it: a dict of lists."""
    return {field: [each[field] for each in completions] for field in completions[0]}


def embedded_feedback():
    row = {key: value for key, value in VLFEEDBACK.items() if key != "img_path"}
    return row | {"image": embedded(), "completions": columns(COMPLETIONS)}


@pytest.mark.parametrize(
    "write, row", [(as_jsonl, VLFEEDBACK), (as_parquet, embedded_feedback()), (as_saved, embedded_feedback())]
)
def test_vlfeedback_pairs_differ_in_mean_rating(folder, write, row):
    tied = row | {"completions": COMPLETIONS[1:3] if row is VLFEEDBACK else columns(COMPLETIONS[1:3])}
    source = read("vlfeedback", write(folder, [row, tied, row]), folder)
    # The same id three times, no pair in the second row.
    records = all_of(source)
    assert len(records) == 4
    for record in records:
        assert record.question == "What is it?" and record.responses[CHOSEN] == "Best."
        assert record.ratings == {CHOSEN: 5.0, REJECTED: 4.0}
        np.testing.assert_array_equal(record.image, PIXELS)
    assert [record.responses[REJECTED] for record in records] == ["Middle.", "Also middle."] * 2
    assert len({record.key for record in records}) == 4


def test_vlfeedback_makes_six_pairs_of_four_that_differ(folder):
    rated = [each | {"annotations": annotation(str(i + 1), "3", "3")} for i, each in enumerate(COMPLETIONS)]
    records = all_of(read("vlfeedback", as_jsonl(folder, [VLFEEDBACK | {"completions": rated}]), folder))
    assert len(records) == 6
    assert all(record.ratings[CHOSEN] > record.ratings[REJECTED] for record in records)


@pytest.mark.parametrize("rating", ["NaN", "inf"])
def test_a_rating_that_is_no_finite_number_is_refused(folder, rating):
    broken = [COMPLETIONS[0] | {"annotations": annotation(rating, "4", "5")}, *COMPLETIONS[1:]]
    source = read("vlfeedback", as_jsonl(folder, [VLFEEDBACK, VLFEEDBACK | {"completions": broken}]), folder)
    assert len(source) == 3 and source[1].responses[REJECTED] == "Also middle."
    with pytest.raises(DataError, match=r"rows.jsonl, line 2: has a rating that is (nan|inf); correct it"):
        source[2]
