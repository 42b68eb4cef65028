"""What is said before the first step."""

from dataclasses import replace

import numpy as np
import pytest

from tests.published_files import as_jsonl, image_folder, read
from tests.small_models import tiny_tokenizer
from vla_jax.data import CHOSEN, REJECTED, Encoder, RecordReport
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.loading import Reader
from vla_jax.data.preflight import preflight, sample

ENCODER = Encoder(
    tiny_tokenizer(),
    ImageProcessor.square(24),
    4,
    (CHOSEN, REJECTED),
    max_prompt_length=60,
    max_completion_length=10,
)


@pytest.fixture
def source(tmp_path):
    """Five good records and a bad one: two with the same image, one without, two with a long answer."""
    folder = image_folder(tmp_path)
    (folder / "images" / "b.png").write_bytes(b"")
    pair = {"img_path": "a.png", "prompt": "What?", "chosen": "A cat.", "rejected": "No."}
    long = "A cat that sleeps on a red mat in the sun."
    lines = [pair, pair | {"chosen": long}, {**pair, "img_path": None}, pair | {"img_path": "b.png"}]
    lines += [pair | {"img_path": "coco/000000000009.png", "rejected": long}, pair]
    return read("mdpo", as_jsonl(folder, lines), folder)


def test_tokens_cuts_images_and_bad_records_are_counted(source):
    report = RecordReport()
    found = preflight(Reader(source, ENCODER), np.arange(6), report, skip=True, most=0)
    encoded = [ENCODER.encode(source[i]) for i in (0, 1, 2, 4, 5)]
    assert found.prompts == [len(row.prefix) for row in encoded]
    assert found.images == [4, 4, 0, 4, 4]
    lengths = [len(ENCODER.tokenizer(text)["input_ids"]) for text in (" A cat.</s>", " No.</s>")]
    assert [found.responses[role][0] for role in (CHOSEN, REJECTED)] == lengths
    # All four images are the same picture.
    assert (found.without_image, found.repeated_images) == (1, 3)
    table = found.table(ENCODER, len(report.bad))
    assert "6, of which 6 were read; 1 bad" in table and table.count("limit 10, 1 cut") == 2
    assert {"line 4"} == {error.record for error in report.bad.values()}
    assert (
        report.truncated == {row.record_id for row in encoded if row.truncated} and len(report.truncated) == 2
    )


def test_pairs_that_differ_behind_the_cut_or_nowhere_are_counted(tmp_path):
    folder = image_folder(tmp_path)
    begin = "A cat that sleeps on a red mat in the sun"
    answers = [
        (f"{begin} and a dog.", f"{begin} and a tree."),
        (f"{begin}.", begin),
        ("A cat.", "A cat."),
        ("A cat.", "A dog."),
        (f"A cat {begin}.", f"A dog {begin}."),
    ]
    pair = {"img_path": "a.png", "prompt": "What?"}
    lines = [pair | {"chosen": chosen, "rejected": rejected} for chosen, rejected in answers]
    reader = Reader(read("mdpo", as_jsonl(folder, lines), folder), ENCODER)
    found = preflight(reader, np.arange(5), RecordReport(), skip=False, most=0)
    assert found.alike == 3
    assert "alike once cut    3, chosen and rejected" in found.table(ENCODER, 0)
    alone = replace(reader, encoder=replace(ENCODER, responses=(CHOSEN,)))
    found = preflight(alone, np.arange(5), RecordReport(), skip=False, most=0)
    assert "alike" not in found.table(alone.encoder, 0)


def test_a_sample_reaches_from_the_first_record_to_the_last():
    assert sample(np.arange(5), 0) == sample(np.arange(5), 9) == [0, 1, 2, 3, 4]
    assert sample(np.array([2, 7, 9]), 2) == [2, 9]
    taken = sample(np.arange(1000), 11)
    assert taken[0] == 0 and taken[-1] == 999 and len(set(taken)) == 11
    np.testing.assert_allclose(np.diff(taken), 99.9, atol=1)
