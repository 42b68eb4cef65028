"""The list of skipped records: written as they are met, whole again after a kill."""

import json

import pytest

from vla_jax.data import DataError
from vla_jax.data.record_report import TooManyBadRecordsError
from vla_jax.training.bad_records import ListedReport


def error(number):
    return DataError("rows.jsonl", f"line {number}", "has no \u00e9\u2028 image", "remove it")


def listed(path):
    return [json.loads(line)["record"] for line in path.read_text().split("\n")[:-1]]


def test_a_record_is_in_the_list_as_soon_as_it_is_met_and_once(tmp_path):
    report = ListedReport(tmp_path / "run" / "bad_records.jsonl")
    assert not (tmp_path / "run").exists()
    for number, expected in ((3, [3]), (5, [3, 5]), (3, [3, 5])):
        report.skipped(error(number))
        assert listed(report.path) == [f"line {number}" for number in expected]
    row = json.loads(report.path.read_text().splitlines()[0])
    assert row == {
        "source": "rows.jsonl",
        "record": "line 3",
        "problem": error(3).problem,
        "remedy": "remove it",
    }


def test_the_record_that_is_one_too_many_is_listed_too(tmp_path):
    report = ListedReport(tmp_path / "bad_records.jsonl")
    report.most_bad = 1
    report.skipped(error(1))
    with pytest.raises(TooManyBadRecordsError):
        report.skipped(error(2))
    assert listed(report.path) == ["line 1", "line 2"]


def begun(folder):
    report = ListedReport(folder / "bad_records.jsonl")
    for number in (1, 2):
        report.skipped(error(number))
    return report.path


def test_a_run_that_goes_on_counts_what_it_skipped_before(tmp_path):
    path = begun(tmp_path)
    before = path.stat()
    report = ListedReport(path, goes_on=True)
    assert [str(bad) for bad in report.bad.values()] == [str(error(1)), str(error(2))]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    report.most_bad = 2
    report.skipped(error(2))
    with pytest.raises(TooManyBadRecordsError):
        report.skipped(error(3))


def test_a_run_that_begins_anew_has_an_empty_list(tmp_path):
    path = begun(tmp_path)
    assert not ListedReport(path).bad and not path.exists()


@pytest.mark.parametrize(
    "torn", ['{"source": "rows.js', '{"source": "rows.jsonl"}\n', "\x00\x00", "[]\n", "\n"]
)
def test_a_torn_line_is_dropped_and_swallows_no_other(tmp_path, torn):
    path = begun(tmp_path)
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + torn if torn[-1] != "\n" else first + torn + second)
    report = ListedReport(path, goes_on=True)
    report.skipped(error(2))
    report.skipped(error(3))
    assert listed(path) == ["line 1", "line 2", "line 3"]
    assert len(ListedReport(path, goes_on=True).bad) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["bad_records.jsonl"]
