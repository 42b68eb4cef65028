"""Settings of campaigns are what the command line would make of them."""

import pytest

from benchmarks.configured import configured, made_once


def test_settings_have_the_types_of_their_fields():
    settings = ["seed=2", "train.steps=7", "base.cache=/elsewhere", "evaluation.saliency=False"]
    config = configured("configs/world_dpo.py", settings)
    assert (config.seed, config.train.steps, config.base.cache) == (2, 7, "/elsewhere")
    assert config.evaluation.saliency is False


def test_a_folder_made_with_other_settings_is_refused(tmp_path):
    folder, made = tmp_path / "pairs", []

    def make():
        made.append(1)
        folder.mkdir()

    for _ in range(2):
        assert made_once(folder, ("seed=0",), make) == folder
    assert len(made) == 1
    with pytest.raises(ValueError, match=r"was made with \['seed=0'\], not with \['seed=1'\]"):
        made_once(folder, ("seed=1",), make)
