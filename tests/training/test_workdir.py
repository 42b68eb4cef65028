"""A working directory belongs to one configuration."""

from pathlib import Path

import pytest

from vla_jax.training.configuration import default_config
from vla_jax.training.workdir import WorkdirError, claim, write_json


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
