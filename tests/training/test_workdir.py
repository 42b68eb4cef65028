"""A working directory belongs to one configuration."""

import json
from pathlib import Path

import pytest

from vla_jax.training.configuration import default_config
from vla_jax.training.workdir import WorkdirError, check_free, claim, write_json


def test_a_new_directory_is_claimed_and_claimed_again(tmp_path):
    claim(tmp_path / "run", default_config())
    claim(tmp_path / "run", default_config())
    assert (tmp_path / "run" / "config.json").is_file()


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    claim(tmp_path, default_config())
    other = default_config()
    other.seed = 5
    with pytest.raises(WorkdirError, match="seed: 0 -> 5"):
        claim(tmp_path, other)


def changed(**fields):
    config = default_config()
    config.update_from_flattened_dict(fields)
    return config


HOW = {
    "mesh.fsdp": (1, 2),
    "sharding.vocab": ("tensor", ""),
    "compute.remat": ("none", "block"),
    "checkpoint.keep": (3, 7),
    "tracking.project": ("", "mine"),
    "profile.steps": (0, 5),
    "compilation_cache": ("", "cache"),
    "rewards.judge.url": ("http://a/v1", "http://b/v1"),
    "rewards.judge.max_cost": (1.0, 2.0),
    "data.workers": (0, 2),
    "data.threads": (1, 4),
    "train.microbatch_size": (0, 2),
}


@pytest.mark.parametrize("field", HOW)
def test_how_a_run_is_computed_may_change_and_is_said(tmp_path, field):
    old, new = HOW[field]
    claim(tmp_path, changed(**{field: old}))
    recorded = (tmp_path / "config.json").read_bytes()
    assert check_free(tmp_path, changed(**{field: old})) == []
    assert check_free(tmp_path, changed(**{field: new})) == [f"{field}: {old!r} -> {new!r}"]
    claim(tmp_path, changed(**{field: new}))
    assert (tmp_path / "config.json").read_bytes() == recorded


@pytest.mark.parametrize(
    "field, value",
    [
        ("train.batch_size", 99),
        ("train.steps", 99),
        ("data.length_multiple", 99),
        ("optimizer.max_grad_norm", 99.0),
        ("evaluation.every", 99),
        ("train.on_nonfinite", "skip"),
        ("lora.rank", 99),
        ("rewards.judge.model", "another"),
        ("recipe", "dpo"),
    ],
)
def test_what_is_computed_may_not_and_every_such_field_is_named(tmp_path, field, value):
    claim(tmp_path, default_config())
    with pytest.raises(WorkdirError) as refused:
        check_free(tmp_path, changed(**{field: value, "seed": 7, "mesh.fsdp": 2}))
    said = str(refused.value)
    assert f"{field}: " in said and f"-> {value!r}" in said and "seed: 0 -> 7" in said
    # What may change is no reason.
    assert "mesh" not in said


def test_a_field_that_the_run_did_not_know_had_its_default(tmp_path):
    claim(tmp_path, default_config())
    recorded = json.loads((tmp_path / "config.json").read_text())
    del recorded["seed"], recorded["optimizer"]["max_grad_norm"], recorded["profile"]
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    assert check_free(tmp_path, default_config()) == []
    with pytest.raises(WorkdirError, match=r"another configuration \(seed: 0 -> 7\)"):
        check_free(tmp_path, changed(seed=7))


@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"\xff\xfe", b"null", b"[]", b"3"])
def test_a_damaged_record_is_named_and_kept(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(
        WorkdirError, match=r"config\.json cannot be read \(.*\); restore it, or choose another"
    ):
        check_free(tmp_path, default_config())
    assert (tmp_path / "config.json").read_bytes() == content


def test_a_list_of_bad_records_alone_does_not_make_a_directory_anothers(tmp_path):
    (tmp_path / "bad_records.jsonl").write_text("")
    assert check_free(tmp_path, default_config()) == []


def test_a_directory_with_other_things_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(WorkdirError, match="not empty and no run of ours"):
        claim(tmp_path, default_config())
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_path_that_cannot_be_made_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot be written"):
        claim(tmp_path / "file" / "run", default_config())


def test_an_object_store_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkdirError, match="not to an object store"):
        claim(Path("gs://bucket/run"), default_config())
    assert not list(tmp_path.iterdir())


def test_json_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", object())
    assert not list(tmp_path.iterdir())
