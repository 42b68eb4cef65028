"""Every layout as it was published: read back into the schema; and broken at random: read or named."""

import copy
import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.published_files import PIXELS, all_of, as_json, as_jsonl, as_parquet, image_folder, read
from tests.published_rows import PUBLISHED, RLAIF_V, RLHF_V, VLFEEDBACK, as_columns, embed
from tests.small_models import tiny_tokenizer
from vla_jax.data import CHOSEN, REJECTED, DataError, Encoder, RecordReport, Turn
from vla_jax.data.formats import named
from vla_jax.data.formats.preference_folder import format_with
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.inspection import inspect
from vla_jax.data.loading import Reader
from vla_jax.data.mixture import Mixture
from vla_jax.data.preflight import preflight
from vla_jax.data.published import Published


def write(folder, layout, rows):
    """The file, or ReasonSeg's folder: an image and its JSON file a row."""
    if layout != "reason_seg":
        return as_json(folder, rows)
    for number, row in enumerate(rows):
        image = folder / "images" / f"{number}.png"
        if not image.exists():
            image.write_bytes((folder / "images" / "a.png").read_bytes())
        image.with_suffix(".json").write_text(json.dumps(row))
    return folder / "images"


def opened(folder, name, rows):
    layout, _ = PUBLISHED[name]
    format = format_with() if layout == "preference_folder" else named(layout)
    return Published(write(folder, layout, rows), format, folder / "images")


# set -> (question, chosen, rejected) of each record
PAIR = ("A cat.", "A dog.")
SAID = {
    "VLFeedback": [
        ("What is it?", "A cat.", "A dog."),
        ("What is it?", "A rat.", "A mat."),
        *(("What is it?", f"{j} cats.", f"{i} cats.") for i in (1, 2, 3, 4) for j in range(i + 1, 5)),
    ],
    "POVID": [
        ("What is it?", "A cat.", "A cat. And a ghost."),
        ("Why?", "It purrs.", "It purrs. And a ghost."),
        ("How?", "So.", "So. And a ghost."),
    ],
    "RLHF-V": [(f"What is {i}?", 'A "cat".', "A dog.") for i in range(3)],
    "RLAIF-V": [(f"What is {i}?", *PAIR) for i in range(3)],
    "LLaVA-Instruct": [("What?", "A.", None), ("How?", "C.", None), ("Write a poem.", "No.", None)],
    "LLaVA-RLHF": [
        ("Why?", "It purrs.", "It barks."),
        ("Why?", "It barks.", "It purrs."),
        ("How?", "It purrs.", "It barks."),
    ],
    "mDPO": [("What is it?", *PAIR), ("What is it?", *PAIR), ("Why?", *PAIR)],
    "LPOI": [(f"What is {i}?", *PAIR) for i in range(3)],
    "TRL": [("What is it?", *PAIR)] * 3,
    "ReasonSeg": [
        (query, None, None) for query in ("What purrs?", "the one", "that purrs", "What eats mice?")
    ],
    "MUSE": [
        ("What do I eat from?", "From {seg}.", None),
        ("Name both.", "A box {seg} and {seg}.", None),
    ]
    * 3,
    "ours": [("What?", *PAIR)] * 3,
}


def check_said(name, records):
    told = [(r.question, r.responses.get(CHOSEN), r.responses.get(REJECTED)) for r in records]
    assert told == SAID[name]
    assert len({record.key for record in records}) == len(records)
    for record in records:
        for image in record.images:
            np.testing.assert_array_equal(image.pixels(), PIXELS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rows_are_read_back(tmp_path, name):
    source = opened(image_folder(tmp_path), name, PUBLISHED[name][1])
    records = all_of(source)
    check_said(name, records)
    images = {"LLaVA-Instruct": [1, 1, 0], "TRL": [1, 2, 1]}.get(name, [1] * len(records))
    assert [len(record.images) for record in records] == images


@pytest.mark.parametrize(
    "name, rows",
    [("VLFeedback", as_columns(VLFEEDBACK)), ("RLHF-V", embed(RLHF_V)), ("RLAIF-V", embed(RLAIF_V))],
)
def test_published_shards_are_read_back(tmp_path, name, rows):
    layout, _ = PUBLISHED[name]
    check_said(name, all_of(read(layout, as_parquet(image_folder(tmp_path), rows), tmp_path)))


def test_records_rank_their_responses(tmp_path):
    source = opened(image_folder(tmp_path), "VLFeedback", VLFEEDBACK)
    assert all(record.ranking == (CHOSEN, REJECTED) for record in all_of(source))


def test_earlier_and_further_turns_are_kept(tmp_path):
    folder = image_folder(tmp_path)
    assert all_of(opened(folder, "mDPO", PUBLISHED["mDPO"][1]))[2].history == (Turn("Who?", "A cat."),)
    instructed = all_of(opened(folder, "LLaVA-Instruct", PUBLISHED["LLaVA-Instruct"][1]))
    assert instructed[0].further_turns == (Turn("Why?", "B."),)


# --- rows broken at random ---------------------------------------------------------------------------

STRANGE = [
    None,
    "",
    "a.png",
    "caf\udce9",
    -5,
    0,
    10**12,
    10**400,
    1e300,
    float("nan"),
    True,
    [],
    [[]],
    [3, 4],
    [[1.0, 2.0]],
    [[10**400] * 6],
    {},
    {"counts": [-1, 5], "size": [20, 30]},
    {"Rating": [1]},
]
ROLES = {"llava_instruct": (CHOSEN,), "muse": (CHOSEN,), "reason_seg": ()}


def places(value, path=()):
    """The paths to everything inside a row."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from places(each, (*path, key))


def broken(row, path, value, drop):
    row = copy.deepcopy(row)
    inner = row
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return row


@pytest.mark.parametrize("name", PUBLISHED)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_row_with_anything_anywhere_is_read_or_named(tmp_path, name, data):
    """No other error, and no row is lost: each is read, named, or counted as one without a record."""
    layout, rows = PUBLISHED[name]
    place = data.draw(st.integers(0, len(rows) - 1))
    path = data.draw(st.sampled_from(list(places(rows[place]))))
    rows = list(rows)
    rows[place] = broken(rows[place], path, data.draw(st.sampled_from(STRANGE)), data.draw(st.booleans()))
    folder = tmp_path if (tmp_path / "images").exists() else image_folder(tmp_path)
    source = opened(folder, name, rows)
    roles = ROLES.get(layout, (CHOSEN, REJECTED))
    encoder = Encoder(tiny_tokenizer(), ImageProcessor.square(24), 4, roles, max_images=2, masks=True)
    seen = set()
    for index in range(len(source)):
        try:
            seen.add(source[index].key.split(",")[0])
            Reader(source, encoder)(index)
        except DataError as error:
            assert error.source == source.name and error.problem and error.remedy
            seen.add(error.record.split(",")[0])
    assert len(seen) + source.empty_rows == len(rows)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - {"ReasonSeg"}))
@pytest.mark.parametrize(
    "line",
    ["9" * 5000, DEEP, '{"id": [1], "key": [1], "prompt": ' + "9" * 5000 + "}", '{"id": ' + DEEP + "}"],
    ids=["5000 digits", "deep", "5000 digits inside", "deep inside"],
)
def test_lines_that_no_parser_reads_are_named(tmp_path, name, line):
    layout, rows = PUBLISHED[name]
    path = as_jsonl(image_folder(tmp_path), rows[:1])
    path.write_text(line + "\n" + path.read_text())
    format = format_with() if layout == "preference_folder" else named(layout)
    source = Published(path, format, tmp_path / "images")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1: "):
        source[0]
    assert source[1].key.startswith("line 2")


@pytest.mark.parametrize("name", ["POVID", "LLaVA-Instruct", "LLaVA-RLHF", "mDPO", "MUSE"])
def test_bytes_that_are_no_utf_8_are_their_own_records_fault(tmp_path, name):
    """Such sets are one list: only the record with the bytes is bad, not the file."""
    path = write(image_folder(tmp_path), *PUBLISHED[name])
    before = path.read_bytes()
    word = {"POVID": b"purrs", "LLaVA-RLHF": b"How", "MUSE": b"eat from"}.get(name, b"Why")
    at = before.index(word)
    path.write_bytes(before[:at] + b"\xe9" + before[at + 1 :])
    source = read(PUBLISHED[name][0], path, tmp_path)
    bad = []
    for index in range(len(source)):
        try:
            source[index]
        except DataError as error:
            bad.append(error)
    assert len({error.record.split(",")[0] for error in bad}) == 1 and len(bad) < len(source)
    assert all("no Unicode text" in error.problem for error in bad)


# --- rows without a record ---------------------------------------------------------------------------


def test_rows_without_a_pair_are_counted(tmp_path):
    """VLFeedback has them by its own rule; they are neither good nor bad records."""
    tied = VLFEEDBACK[0] | {"completions": VLFEEDBACK[0]["completions"][:1]}
    source = opened(image_folder(tmp_path), "VLFeedback", [tied, VLFEEDBACK[1], tied])
    assert (len(source), source.empty_rows) == (1, 2)
    assert "1 good, 0 bad" in (table := inspect(source).table()) and re.search(
        r"rows without any +2\n", table
    )
    encoder = Encoder(tiny_tokenizer(), ImageProcessor.square(24), 4, (CHOSEN, REJECTED))
    found = preflight(Reader(source, encoder), np.arange(1), RecordReport(), skip=False, most=0)
    assert re.search(r"rows without any +2\n", found.table(encoder, bad=0))
    assert Mixture([source], [1]).empty_rows == 2
    with pytest.raises(DataError, match="there is no usable record in it"):
        opened(tmp_path, "VLFeedback", [tied])


@pytest.mark.parametrize(
    "name, empty, problem",
    [("ReasonSeg", {"text": []}, "no query"), ("MUSE", {"questions": []}, "no question")],
)
def test_rows_that_ask_nothing_are_bad_ones(tmp_path, name, empty, problem):
    rows = PUBLISHED[name][1]
    source = opened(image_folder(tmp_path), name, [rows[0] | empty, *rows[1:]])
    with pytest.raises(DataError, match=f"(row 0|0.json): has {problem}"):
        source[0]
    assert source.empty_rows == 0 and len(source) == len(SAID[name]) - (1 if name == "MUSE" else 0)


def test_each_bad_record_of_a_row_counts(tmp_path):
    rows = [VLFEEDBACK[2] | {"img_path": "../out.png"}, VLFEEDBACK[1]]
    source = opened(image_folder(tmp_path), "VLFeedback", rows)
    named_records = []
    for index in range(6):
        with pytest.raises(DataError) as refused:
            source[index]
        named_records.append(refused.value.record)
    assert named_records == [f"row 0, record {i} of 6" for i in range(1, 7)]
