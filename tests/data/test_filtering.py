"""A function of the user's that says which records are trained on."""

import json

import pytest

from vla_jax.data import DataError
from vla_jax.data.filtering import filter_named, passing
from vla_jax.data.formats import named
from vla_jax.data.published import Published

MODULE = """
def short(record):
    return len(record.responses["chosen"]) < 5

def broken(record):
    return record.no_such_field
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Three records, the second of which is bad, and a module of filters where we stand."""
    rows = [
        {"prompt": "What?", "chosen": chosen, "rejected": "No."} for chosen in ("Yes.", "", "A long one.")
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "filters_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    return Published(tmp_path / "pairs.jsonl", named("trl"), tmp_path)


def test_what_it_keeps_passes_and_so_do_bad_records_that_must_be_named(source):
    with pytest.raises(DataError):
        source[1]
    assert passing(source, filter_named("filters_of_mine:short"), "short").tolist() == [0, 1]


def test_a_function_that_fails_is_named_with_the_record(source):
    with pytest.raises(DataError, match="pairs, line 1: makes mine:broken fail .*no_such_field"):
        passing(source, filter_named("filters_of_mine:broken"), "mine:broken", "pairs")


@pytest.mark.parametrize("path", ["", "nowhere_at_all:short", "filters_of_mine:none", "filters_of_mine"])
def test_one_that_is_not_there_is_refused(source, path):
    with pytest.raises(ValueError, match="data.filter is .* cannot be found .* give module:function"):
        filter_named(path)
