"""The campaign of reward models: what it prints, and that what is finished is not done again."""

import json
from pathlib import Path

import pytest

from benchmarks import reward_table
from benchmarks.configured import configured
from benchmarks.pair_sets import SETS
from benchmarks.reward_table import asked, cross_table, seed_table

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/world_reward_model.py"


def shares(value):
    return dict.fromkeys(SETS, value)


def test_rows_are_what_was_trained_on_and_columns_what_was_asked_about():
    heads, _, row = cross_table({"yes/no": [shares(50.0), shares(60.0)]}).splitlines()
    assert heads == "| trained on \\ asked about | " + " | ".join(SETS) + " | seeds |"
    assert row == "| yes/no |" + " 55.0 ± 7.1 |" * len(SETS) + " 2 |"
    assert seed_table("yes/no", {3: shares(61.25)}).splitlines()[-1] == "| 3 |" + " 61.2 |" * len(SETS)


@pytest.fixture
def folders(tmp_path):
    return {name: tmp_path / name for name in ("one", "two")}


def test_a_model_is_asked_about_each_set_once(tmp_path, folders, monkeypatch):
    questions = []

    class Assembled:
        def __init__(self, config):
            self.path = config.evaluation.path

        def held_out_metrics(self):
            questions.append(self.path)
            return {"eval_rewards/accuracies": 0.75}

    monkeypatch.setattr(reward_table, "load_model", lambda workdir: workdir)
    monkeypatch.setattr(reward_table, "assemble", lambda config, model: Assembled(config))
    (tmp_path / "held_out_pairs.json").write_text(json.dumps({"one": 50.0}))
    found = asked(tmp_path, folders, configured(CONFIG, []))
    assert found == {"one": 50.0, "two": 75.0}
    assert questions == [str(folders["two"] / "held_out")]
    assert asked(tmp_path, folders, configured(CONFIG, [])) == found and len(questions) == 1


def test_what_is_finished_is_told_with_the_number_of_its_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for folder, value in (("swapped_noun-seed0", 70.0), ("swapped_noun-seed1", 80.0), ("yes-no-seed0", 60.0)):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        (tmp_path / "runs" / folder / "held_out_pairs.json").write_text(json.dumps(shares(value)))
    half = tmp_path / "runs/yes-no-seed1"
    half.mkdir()
    (half / "held_out_pairs.json").write_text(json.dumps({"yes/no": 1.0}))
    monkeypatch.setattr("sys.argv", ["reward_table", "--finished", "--runs=runs", "--seeds=0,1"])
    monkeypatch.setattr(
        reward_table, "configured", lambda config, settings: configured(ROOT / config, settings)
    )
    reward_table.main()
    page = (tmp_path / "docs/reward_table.md").read_text()
    assert "| swapped noun |" + " 75.0 ± 7.1 |" * len(SETS) + " 2 |\n" in page
    assert "| yes/no |" + " 60.0 |" * len(SETS) + " 1 |\n" in page and "\n| own answer |" not in page
    assert page.partition("\n\n## Findings")[0].partition("\n\n")[2] in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["reward_table", "--finished", "--runs=nowhere"])
    with pytest.raises(SystemExit):
        reward_table.main()
