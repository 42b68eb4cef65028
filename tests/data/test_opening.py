"""Files of every kind, opened: what is in them comes as plain rows, what is broken is named."""

import contextlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.published_files import PIXELS, as_saved, datasets, png
from tests.shared_data import shared
from vla_jax.data import CHOSEN, REJECTED, DataError
from vla_jax.data.formats import named
from vla_jax.data.opening import open_rows
from vla_jax.data.published import Published

PAIR = {"prompt": "What?", "chosen": "A cat.", "rejected": "A dog.", "image": "a.png"}


def numbered(count, first=0):
    return [PAIR | {"prompt": f"What is {first + i}?"} for i in range(count)]


# --- parquet -----------------------------------------------------------------------------------------


def shards(folder, **counts):
    """A folder of parquet files, each with so many rows."""
    folder.mkdir()
    first = 0
    for name, count in counts.items():
        datasets.Dataset.from_list(numbered(count, first)).to_parquet(folder / f"{name}.parquet")
        first += count
    return folder


def test_rows_of_shards_are_named_by_their_own_file(tmp_path):
    folder = shards(tmp_path / "shards", **{"part-0": 3, "part-1": 1, "part-2": 2})
    rows = open_rows(folder)
    assert [rows[i]["prompt"] for i in range(len(rows))] == [f"What is {i}?" for i in range(6)]
    assert [rows.place(i) for i in (0, 2, 3, 4, 5)] == [
        "part-0.parquet, row 0",
        "part-0.parquet, row 2",
        "part-1.parquet, row 0",
        "part-2.parquet, row 0",
        "part-2.parquet, row 1",
    ]
    with pytest.raises(DataError, match=r"shards, part-2\.parquet, row 1: has no list 'completions'"):
        Published(folder, named("vlfeedback"))[5]


def test_shards_of_several_splits_are_refused_until_one_is_chosen(tmp_path):
    names = ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")
    folder = shards(tmp_path / "set", **dict(zip(names, (2, 1, 3), strict=True)))
    with pytest.raises(DataError, match=r"holds shards of several splits: .*train-.*test-|.*test-.*train-"):
        open_rows(folder)
    assert len(open_rows(folder / "train*.parquet")) == 3
    assert len(open_rows(folder / "test-00000-of-00001.parquet")) == 3


def test_words_that_only_hold_the_name_of_a_split_are_none(tmp_path):
    assert len(open_rows(shards(tmp_path / "set", latest=2, constrained=1))) == 3


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_parquet_file_that_is_cut_off_is_named(tmp_path, share):
    folder = shards(tmp_path / "shards", **{"part-0": 3, "part-1": 3})
    broken = folder / "part-1.parquet"
    content = broken.read_bytes()
    broken.write_bytes(content[: int(share * len(content))])
    for path in (folder, broken):
        with pytest.raises(DataError, match=r"part-1\.parquet, whole file: is no whole parquet file"):
            open_rows(path)


def test_a_parquet_file_with_broken_pages_is_named(tmp_path):
    folder = shards(tmp_path / "shards", **{"part-0": 3, "part-1": 3})
    broken = folder / "part-1.parquet"
    content = bytearray(broken.read_bytes())
    content[4:80] = bytes(76)
    broken.write_bytes(content)
    with pytest.raises(DataError, match=r"part-1\.parquet, whole file: cannot be read"):
        open_rows(folder)


# --- folders that `datasets` saved -------------------------------------------------------------------


def test_a_saved_folder_is_read_and_one_of_several_splits_refused(tmp_path):
    assert len(open_rows(as_saved(tmp_path, numbered(3)))) == 3
    both = datasets.DatasetDict({name: datasets.Dataset.from_list(numbered(2)) for name in ("train", "test")})
    both.save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match=r"both, whole folder: holds several splits: test, train; give the"):
        open_rows(tmp_path / "both")
    assert len(open_rows(tmp_path / "both" / "train")) == 2


# --- JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, place",
    [
        ('[{"a": 1}, {"a": 2}, {"a": ]', "row 2"),
        ('[{"a": 1} {"a": 2}]', "row 0, or what follows it"),
        ('[{"a": 1}, ' + "[" * 100_000, "row 1"),
        ("nothing", "whole file"),
        ('"text"', "whole file"),
    ],
)
def test_a_list_that_is_broken_names_the_row(tmp_path, content, place):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(DataError, match=rf"rows\.json, {place}: "):
        open_rows(tmp_path / "rows.json")


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path):
    lines = [json.dumps(row) for row in numbered(2)]
    (tmp_path / "rows.jsonl").write_text("\ufeff" + lines[0] + "\n\n \n" + lines[1])
    rows = open_rows(tmp_path / "rows.jsonl")
    assert [rows[i]["prompt"] for i in range(len(rows))] == ["What is 0?", "What is 1?"]
    assert [rows.place(i) for i in range(2)] == ["line 1", "line 4"]


# --- TFDS --------------------------------------------------------------------------------------------

tfds = pytest.importorskip("tensorflow_datasets")


def prepared(folder, examples, features, name="pairs"):
    """A data set as TFDS prepares it, `train` and `test`; gives the folder of its version."""

    class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Some records."""

        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = None

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": enumerate(examples), "test": enumerate(examples[:1])}

        def _generate_examples(self):
            raise NotImplementedError

    Pairs.name = name
    tfds.disable_progress_bar()
    builder = Pairs(data_dir=folder, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return builder.data_path


MESSAGES = tfds.features.Sequence({"role": tfds.features.Text(), "content": tfds.features.Text()})
CONVERSATIONAL = {
    "images": tfds.features.Sequence(tfds.features.Image()),
    **dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES),
}


def conversational(images, question="What?"):
    said = {"prompt": ("user", question), "chosen": ("assistant", "A cat."), "rejected": ("assistant", "No.")}
    return {
        "images": [io.BytesIO(image) for image in images],
        **{field: [{"role": role, "content": words}] for field, (role, words) in said.items()},
    }


def test_conversations_and_images_of_tfds_are_read(tmp_path):
    images = ([png()], [png(), png(PIXELS[::-1])], [])
    path = prepared(tmp_path, [conversational(each) for each in images], CONVERSATIONAL)
    source = Published(f"tfds:{path}", named("trl"))
    records = [source[index] for index in range(len(source))]
    assert {(record.question, *record.responses.values()) for record in records} == {
        ("What?", "A cat.", "No.")
    }
    assert sorted(len(record.images) for record in records) == [0, 1, 2]
    two = next(record for record in records if len(record.images) == 2)
    np.testing.assert_array_equal(two.images[1].pixels(), PIXELS[::-1])
    assert two.images[0].encoded() == png()


def test_one_image_or_an_array_of_tfds_is_read(tmp_path):
    texts = {field: PAIR[field] for field in ("prompt", "chosen", "rejected")}
    plain = dict.fromkeys(texts, tfds.features.Text())
    for number, (feature, image) in enumerate(
        (
            (tfds.features.Image(), io.BytesIO(png())),
            (tfds.features.Tensor(shape=PIXELS.shape, dtype=np.uint8), PIXELS),
        )
    ):
        path = prepared(tmp_path / str(number), [texts | {"image": image}], plain | {"image": feature})
        record = Published(f"tfds:{path}", named("trl"))[0]
        np.testing.assert_array_equal(record.image, PIXELS)


def test_a_prepared_set_is_named_with_its_version_and_split(tmp_path):
    from tensorflow_datasets.core.utils import file_utils

    examples = [conversational([png()]) for _ in range(3)]
    path = prepared(tmp_path, examples, CONVERSATIONAL, "pairs_of_ours")
    assert (len(open_rows(f"tfds:{path}")), len(open_rows(f"tfds:{path}:test"))) == (3, 1)
    assert len(open_rows(f"tfds:{path}:train[:2]")) == 2 and len(open_rows(path)) == 3
    file_utils.add_data_dir(str(tmp_path))
    try:
        named_sets = {":": 3, ":1.0.0": 3, ":test": 1, ":1.0.0:test": 1, ":1.0.0:train[1:]": 2}
        for rest, count in named_sets.items():
            assert len(open_rows(f"tfds:pairs_of_ours{rest.rstrip(':')}")) == count
    finally:
        file_utils.clear_registered_data_dirs()


@pytest.mark.parametrize("name", ["tfds:", "tfds:no_set_of_this_name", "tfds:no_set:1.0.0"])
def test_a_set_that_is_none_is_named(name):
    with pytest.raises(DataError, match=f"{re.escape(name)}, (data.path|whole file): "):
        open_rows(name)


def test_files_without_random_access_are_refused_with_what_to_do(tmp_path):
    path = prepared(tmp_path, [conversational([png()])], CONVERSATIONAL)
    info = path / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match=r"without random access \(tfrecord\); prepare it with file_format"):
        open_rows(f"tfds:{path}")


def test_real_photographs_are_read_through_tfds(tmp_path):
    photos = shared("photos")
    lines = [json.loads(line) for line in (photos / "preference.jsonl").read_text().splitlines()]
    examples = [
        conversational([(photos / line["image"]).read_bytes()], f"{line['question']} {line['image']}")
        for line in lines
    ]
    source = Published(f"tfds:{prepared(tmp_path, examples, CONVERSATIONAL)}", named("trl"))
    assert len(source) == len(lines) == 25
    # TFDS shuffles what it prepares.
    for index in range(len(source)):
        record = source[index]
        name = record.question.split()[-1]
        assert record.responses == {CHOSEN: "A cat.", REJECTED: "No."}
        np.testing.assert_array_equal(record.image, np.asarray(Image.open(photos / name)))
    assert len({source[index].question for index in range(len(source))}) == len(lines)
