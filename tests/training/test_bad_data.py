"""Every way in which data come broken: the first bad record is named, or each is skipped and listed."""

import json
import re

import pytest

from tests.broken_images import HTML, bomb, half_a_jpeg
from tests.published_files import image_folder
from tests.small_models import tiny_model
from vla_jax.data import DataError
from vla_jax.data.record_report import TooManyBadRecordsError
from vla_jax.training.assembly import assemble
from vla_jax.training.bad_records import ListedReport
from vla_jax.training.configuration import check, default_config

# As large as the world can be drawn.
MODEL = tiny_model(vision={"image_size": 36})
RECORDS = 100
# Rows counted from 0; with the first alone 1 % is bad, with both more.
FIRST, SECOND = 41, 77


def pair(number):
    return {"id": number, "images": ["a.png"], "prompt": "What?", "chosen": "A cat.", "rejected": "A dog."}


def rated(rating):
    """Two answers rated in VLFeedback's way."""
    aspects = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    completions = [
        {"response": words, "annotations": {aspect: {"Rating": value} for aspect in aspects}}
        for words, value in (("A cat.", rating), ("A dog.", "2"))
    ]
    return {"id": "svit-1", "img_path": "a.png", "prompt": "What?", "completions": completions}


def shows(content, suffix="jpg"):
    """A row whose image has this content."""

    def write(folder, number):
        (folder / "images" / f"broken.{suffix}").write_bytes(content)
        return line(pair(number) | {"images": [f"broken.{suffix}"]})

    return write


def row(**changed):
    return lambda folder, number: line(pair(number) | changed)


def line(row):
    return json.dumps(row).encode()


# case -> (layout, a bad line given the folder and the row's number, what is said of it)
CASES = {
    "truncated JPEG": ("trl", shows(half_a_jpeg()), r"cannot be read: .*broken\.jpg"),
    "zero-byte file": ("trl", shows(b""), r"cannot be read: .*broken\.jpg"),
    "30,000 x 30,000 PNG": ("trl", shows(bomb(30_000), "png"), "900000000 pixels|30000x30000 pixels"),
    "path out of the folder": ("trl", row(images=["../../etc/passwd.png"]), "an image outside of .*passwd"),
    "missing image": ("trl", row(images=["gone.jpg"]), r"an image that is missing: .*gone\.jpg"),
    "HTML saved as .jpg": ("trl", shows(HTML), r"cannot be read: .*broken\.jpg"),
    "invalid UTF-8": (
        "trl",
        lambda folder, number: line(pair(number)).replace(b"cat", b"c\xe9t"),
        "is not UTF-8",
    ),
    "NaN rating": (
        "vlfeedback",
        lambda folder, number: line(rated(float("nan"))),
        "has a rating that is nan",
    ),
    "duplicate id": ("trl", row(id=7), "has the 'id' of line 8"),
    "10 MB string": ("trl", row(chosen="A cat. " * 1_500_000), "has a 'chosen' of 10,500,000 characters"),
}


def configured(folder, layout, bad, **changes):
    """A run over a file where these rows are bad."""
    lines = [line(rated("5") if layout == "vlfeedback" else pair(number)) for number in range(RECORDS)]
    for number, write in bad.items():
        lines[number] = write(folder, number)
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    config = default_config()
    config.recipe = "dpo"
    config.data.source = layout
    config.data.path = str(folder / "rows.jsonl")
    config.data.images = str(folder / "images")
    config.data.max_prompt_length = 60
    config.data.max_completion_length = 8
    config.data.length_multiple = 0
    config.lora.rank = 2
    config.train.batch_size = 20
    config.train.steps = RECORDS // 20
    config.update_from_flattened_dict(changes)
    check(config)
    return config


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_the_first_bad_record_is_named(folder, case):
    layout, write, problem = CASES[case]
    config = configured(folder, layout, {FIRST: write, SECOND: write})
    with pytest.raises(DataError, match=problem) as refused:
        assemble(config, MODEL)
    assert (refused.value.source, refused.value.record) == (config.data.path, f"line {FIRST + 1}")


@pytest.mark.parametrize("case", CASES)
def test_bad_records_are_skipped_and_listed_up_to_one_in_a_hundred(folder, case):
    layout, write, problem = CASES[case]
    config = configured(folder, layout, {FIRST: write}, **{"data.on_bad_record": "skip"})
    report = ListedReport(folder / "run" / "bad_records.jsonl")
    run = assemble(config, MODEL, report)
    # Every other record is in the one epoch, once.
    assert sum(float(batch.weights.sum()) for batch in run.open_batches(0)) == RECORDS - 1
    assert listed(report, problem) == [f"line {FIRST + 1}"]

    config = configured(folder, layout, {FIRST: write, SECOND: write}, **{"data.on_bad_record": "skip"})
    report = ListedReport(folder / "run" / "bad_records.jsonl")
    with pytest.raises(TooManyBadRecordsError, match="with it 2 records are bad, and 1 may be"):
        assemble(config, MODEL, report)
    assert listed(report, problem) == [f"line {FIRST + 1}", f"line {SECOND + 1}"]


def test_one_bad_record_too_many_stops_a_run_that_did_not_read_all_before(folder):
    layout, write, problem = CASES["missing image"]
    changes = {"data.on_bad_record": "skip", "data.preflight": 2}
    report = ListedReport(folder / "run" / "bad_records.jsonl")
    run = assemble(configured(folder, layout, {FIRST: write, SECOND: write}, **changes), MODEL, report)
    assert not report.bad
    with pytest.raises(TooManyBadRecordsError, match="with it 2 records are bad, and 1 may be"):
        list(run.open_batches(0))
    assert sorted(listed(report, problem)) == [f"line {FIRST + 1}", f"line {SECOND + 1}"]


def listed(report, problem):
    """The records of the list, each with its reason."""
    rows = [json.loads(row) for row in report.path.read_text().splitlines()]
    for row in rows:
        assert re.search(problem, row["problem"])
        assert row["source"].endswith("rows.jsonl") and row["remedy"]
    return [row["record"] for row in rows]
