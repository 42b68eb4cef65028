"""Verdicts on disk: whole lines only, each key once, one writer."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rewards.local_server import comparison
from vla_jax.rewards.judging import JudgeError, shown
from vla_jax.rewards.reading import Reading
from vla_jax.rewards.verdict_cache import VerdictCache

ASKED = [shown(comparison(i), False, {}) for i in range(4)]
READINGS = [
    Reading(1, "Response 1 is better.", tokens=(10, 3)),
    Reading(2, "2\n\u2028 é", tokens=(5, 1)),
    Reading(None, "a tie"),
    Reading(None, "", "the reply is empty"),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "folder" / "verdicts.jsonl"
    cache = VerdictCache(path)
    for asked, reading in zip(ASKED, READINGS, strict=True):
        cache.record(asked, reading)
    cache.close()
    return path


def known(path):
    cache = VerdictCache(path)
    readings = [cache.get(asked.key) for asked in ASKED]
    cache.close()
    return readings


def test_what_was_recorded_is_read_back(file):
    assert known(file) == READINGS
    cache = VerdictCache(file)
    assert len(cache) == 4 and cache.tokens() == (15, 4) and cache.get("another") is None
    cache.close()
    assert json.loads(file.read_text().split("\n")[0])["responses"] == list(ASKED[0].responses)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_wherever_a_kill_tears_the_file_whole_lines_stay_and_it_goes_on(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("torn") / "verdicts.jsonl"
    cache = VerdictCache(path)
    for asked, reading in zip(ASKED, READINGS, strict=True):
        cache.record(asked, reading)
    cache.close()
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    assert known(path) == READINGS[:whole] + [None] * (4 - whole)
    cache = VerdictCache(path)
    for asked, reading in list(zip(ASKED, READINGS, strict=True))[whole:]:
        cache.record(asked, reading)
    cache.close()
    assert path.read_bytes() == content


def test_a_verdict_is_recorded_once(file):
    cache = VerdictCache(file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="has a verdict already"):
        cache.record(ASKED[0], READINGS[1])
    cache.close()
    assert file.read_bytes() == before


def test_a_line_is_on_the_disk_when_it_is_recorded(file, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(file.read_bytes().count(b"\n")))
    cache = VerdictCache(file)
    for i in (7, 8):
        cache.record(shown(comparison(i), False, {}), READINGS[0])
    cache.close()
    assert synced == [5, 6]


def test_a_full_disk_leaves_the_file_as_it_was(file, monkeypatch):
    before = file.read_bytes()
    cache = VerdictCache(file)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    asked = shown(comparison(9), False, {})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        cache.record(asked, READINGS[0])
    assert file.read_bytes() == before
    cache.record(asked, READINGS[0])
    cache.close()
    assert file.read_bytes().startswith(before) and file.read_bytes().count(b"\n") == 5


def test_one_process_writes_at_a_time(file):
    cache = VerdictCache(file)
    with pytest.raises(JudgeError, match="is being written by another process"):
        VerdictCache(file)
    cache.close()
    VerdictCache(file).close()


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b'{"key": "a"}',
        b'{"key": "a", "better": 3, "reply": "", "problem": "", "tokens": [0, 0]}',
        b'{"key": ["a"], "better": 1, "reply": "", "problem": "", "tokens": [0, 0]}',
        b'{"key": "a", "better": 1, "reply": null, "problem": "", "tokens": [0, 0]}',
        b'{"key": "a", "better": 1, "reply": "", "problem": "", "tokens": ["1", "2"]}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_verdict_is_named(file, line):
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"verdicts\.jsonl:5: is no verdict .*remove the line"):
        VerdictCache(file)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:4]))
    VerdictCache(file).close()


def test_a_key_that_stands_twice_is_named(file):
    file.write_bytes(file.read_bytes() * 2)
    with pytest.raises(ValueError, match=r"verdicts\.jsonl:5: .* has a verdict further up"):
        VerdictCache(file)
