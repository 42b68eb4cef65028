"""Packing: what comes out of array_record is what went in, keys, masks and the bytes of images included."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.forked import run
from tests.published_files import PIXELS, as_json, as_jsonl, image_folder, png, read
from tests.shared_data import shared
from vla_jax.construct.files import pack_into
from vla_jax.data import CHOSEN, REJECTED, DataError, Object, Record, Turn
from vla_jax.data.formats import named
from vla_jax.data.formats.preference_folder import format_with
from vla_jax.data.images import ImageBytes, Pixels
from vla_jax.data.packing import pack
from vla_jax.data.published import Published
from vla_jax.data.record_report import TooManyBadRecordsError

MASK = PIXELS[..., 0] > 100
RECORDS = [
    Record("text only", (), "Why 猫?", {CHOSEN: "So."}, system="Be brief."),
    Record(
        "two images",
        (ImageBytes(png(), "a.png"), Pixels(PIXELS[::-1])),
        "What?",
        {CHOSEN: "A cat.", REJECTED: "A dog."},
        history=(Turn("Who?", "Me."),),
        further_turns=(Turn("Sure?", "Yes."),),
        objects=(Object("cat", (1.0, 2.0, 3.5, 4.0), MASK), Object("dog"), Object("", (0.0, 0.0, 9.0, 9.0))),
        key_object=2,
        ratings={CHOSEN: 4.5, REJECTED: 2.0},
        spans={REJECTED: ((2, 5),)},
        provenance={"rejected": {"tries": 2, "cuts": [[0, 1]], "similarity": 0.5, "model": "ab12"}},
    ),
]


def same(ours, theirs):
    plain = (
        "key",
        "question",
        "responses",
        "history",
        "system",
        "further_turns",
        "ratings",
        "spans",
        "provenance",
        "key_object",
    )
    assert all(getattr(ours, name) == getattr(theirs, name) for name in plain)
    assert [i.encoded() for i in ours.images] == [i.encoded() for i in theirs.images]
    assert [(o.name, o.box) for o in ours.objects] == [(o.name, o.box) for o in theirs.objects]
    for mine, other in zip(ours.objects, theirs.objects, strict=True):
        assert (mine.mask is None) == (other.mask is None)
        assert mine.mask is None or np.array_equal(mine.mask, other.mask)


def test_records_come_back_as_they_were(tmp_path):
    assert pack(RECORDS, tmp_path / "packed") == 2
    back = Published(tmp_path / "packed", named("packed"))
    assert len(back) == 2
    for index, record in enumerate(RECORDS):
        same(back[index], record)
    assert not [file for file in tmp_path.iterdir() if file.name != "packed"]


def test_real_photographs_go_through_array_record_untouched(tmp_path):
    source = Published(shared("photos") / "preference.jsonl", format_with())
    pack(source, tmp_path / "packed")
    back = Published(tmp_path / "packed", named("packed"))
    assert len(back) == len(source) == 25
    for index in range(len(source)):
        same(back[index], source[index])
        np.testing.assert_array_equal(back[index].image, source[index].image)


def test_real_photographs_in_trl_style(tmp_path):
    photos = shared("photos")
    lines = [json.loads(line) for line in (photos / "preference.jsonl").read_text().splitlines()]

    def message(role, text, images=()):
        return {"role": role, "content": [*images, {"type": "text", "text": text}]}

    rows = [
        {
            "images": [line["image"]],
            "prompt": [message("user", line["question"], [{"type": "image"}])],
            "chosen": [message("assistant", line["chosen"])],
            "rejected": [message("assistant", line["rejected"])],
        }
        for line in lines
    ]
    source = Published(as_jsonl(tmp_path, rows), named("trl"), photos)
    for index, line in enumerate(lines):
        record = source[index]
        assert record.question == line["question"]
        assert record.responses == {CHOSEN: line["chosen"], REJECTED: line["rejected"]}
        np.testing.assert_array_equal(record.image, np.asarray(Image.open(photos / line["image"])))


def rows_with_one_bad(tmp_path):
    image_folder(tmp_path)
    good = {"img_path": "a.png", "prompt": "What?", "chosen": "A cat.", "rejected": "A dog."}
    return read("mdpo", as_json(tmp_path, [good, good | {"img_path": "gone.png"}, good]), tmp_path)


def test_a_bad_record_stops_packing_or_is_left_out_and_told(tmp_path):
    source, told = rows_with_one_bad(tmp_path), []
    with pytest.raises(DataError, match=r"row 1: names an image that is missing: .*gone\.png"):
        pack(source, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    assert pack(source, tmp_path / "packed", told.append) == 2
    assert [error.record for error in told] == ["row 1"]
    back = Published(tmp_path / "packed", named("packed"))
    assert [back[i].key for i in range(len(back))] == ["row 0", "row 2"]


def test_a_folder_that_exists_is_left_alone(tmp_path):
    with pytest.raises(FileExistsError, match="exists; remove it"):
        pack(RECORDS, tmp_path)


def test_a_data_set_without_a_good_record_is_refused(tmp_path):
    source = read("mdpo", as_json(tmp_path, [{}]), tmp_path)
    with pytest.raises(DataError, match="every record: none can be used"):
        pack(source, tmp_path / "packed", lambda error: None)
    assert not (tmp_path / "packed").exists()


# --- the commands ------------------------------------------------------------------------------------


def construct(*arguments):
    return run("vla_jax.construct", *arguments)


def test_the_commands_inspect_and_pack(tmp_path):
    rows_with_one_bad(tmp_path)
    where = ("--source=mdpo", f"--path={tmp_path}/rows.json", f"--images={tmp_path}/images")
    inspected = construct("inspect", *where, f"--to={tmp_path}/page.html")
    assert inspected.returncode == 0, inspected.stderr
    assert "2 good, 1 bad, of 3 looked at" in inspected.stdout and "gone.png" in inspected.stdout
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "gone.png" in page

    refused = construct("pack", *where, f"--to={tmp_path}/packed")
    assert refused.returncode == 1 and "row 1: names an image that is missing" in refused.stderr
    skip = ("--on_bad_record=skip", "--max_bad_fraction=0.4")
    packed = construct("pack", *where, f"--to={tmp_path}/packed", *skip)
    assert packed.returncode == 0, packed.stderr
    assert "2 records, 1 bad ones left out" in packed.stdout and "packed.bad_records.jsonl" in packed.stdout
    again = construct("inspect", "--source=packed", f"--path={tmp_path}/packed")
    assert "2 good, 0 bad, of 2 looked at" in again.stdout


def test_what_packing_leaves_out_is_listed_beside_the_folder_and_more_than_may_be_stops_it(tmp_path):
    source, listed = rows_with_one_bad(tmp_path), tmp_path / "packed.bad_records.jsonl"
    with pytest.raises(TooManyBadRecordsError, match="with it 1 records are bad, and 0 may be"):
        pack_into(source, tmp_path / "packed", 0.01)
    assert not (tmp_path / "packed").exists()
    pack_into(source, tmp_path / "packed", 0.4)
    assert len(Published(tmp_path / "packed", named("packed"))) == 2
    (bad,) = map(json.loads, listed.read_text().splitlines())
    assert bad["record"] == "row 1" and "gone.png" in bad["problem"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((), "say what to do"),
        (("unpack",), "say what to do"),
        (("pack", "--source=trl", "--path=a.json"), "pack needs --to; it says where to pack"),
        (("key_objects", "--to=a"), "key_objects needs --config"),
        (
            ("inspect", "--source=trl", "--path=a.json", "--as_rejected"),
            "inspect does not read --as_rejected",
        ),
        (("inspect", "--source=trl", "--path=/nowhere.json"), "there is no such file"),
        (("inspect", "--source=coco", "--path=a"), "--source"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, says):
    done = construct(*arguments, *(("--source=trl", "--path=a") if len(arguments) < 2 else ()))
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr
