"""What holds of every layout."""

import pytest

from tests.published_files import as_json, image_folder, read
from vla_jax.data import DataError
from vla_jax.data.formats import available, named


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


def test_a_layout_that_does_not_exist_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"no data format 'coco'; choose one of {', '.join(available())}"):
        named("coco")


@pytest.mark.parametrize("name", available())
def test_no_layout_chokes_on_rows_of_another(folder, name):
    rows = [
        {},
        {"image": 3},
        {"conversations": [[]]},
        {"prompt": None},
        {"completions": {"a": []}},
        {"text": 5},
    ]
    source = read(name, as_json(folder, rows), folder)
    for index in range(len(source)):
        with pytest.raises(DataError, match="rows.json, row "):
            source[index]


def test_a_folder_or_list_that_is_none_is_refused(folder):
    with pytest.raises(DataError, match="holds no parquet shards"):
        read("trl", folder / "images", folder)
    (folder / "rows.json").write_text("[{]")
    with pytest.raises(DataError, match="rows.json, row 0: is not valid JSON"):
        read("trl", folder / "rows.json", folder)
