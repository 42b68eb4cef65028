"""The campaign of methods that sample: what it makes first, that it goes on, what its tables say."""

import json
from pathlib import Path

import pytest

from benchmarks import online_table, world_table
from benchmarks.online_table import OTHER_REWARDS, ROWS, seed_table
from benchmarks.world_table import _HEADINGS


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """Runs the campaign in an empty place; training and making are notes of what was asked for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    commands = []

    def start(command, check):
        assert check
        commands.append(command)
        places = [part.split("=")[1] for part in command if part.startswith(("--workdir=", "--to="))]
        folder = Path(places[0])
        folder.mkdir(parents=True)
        scores = {"n": 500, "pope_n": 3000, **dict.fromkeys(_HEADINGS, float(len(commands)))}
        summary = {"before": scores, "after": scores, "steps": 2, "batch_size": 4}
        (folder / "summary.json").write_text(json.dumps(summary))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["online_table", *arguments])
        online_table.main()
        done = list(commands)
        commands.clear()
        return done

    for module in (online_table, world_table):
        monkeypatch.setattr(module.subprocess, "run", start)
    return run


def test_sets_are_made_before_they_are_read_and_nothing_is_done_twice(campaign, tmp_path):
    commands = campaign("--seeds=0", "--runs=runs", "--set=base.cache=bases")
    assert len(commands) == len(ROWS) + 2
    making, reading = commands[:2]
    assert "bdhs" in making and "--config.seed=0" in making
    (folder,) = (part.split("=")[1] for part in making if part.startswith("--to="))
    assert f"--config.data.path={folder}" in reading
    assert "--config.options.bdhs.noise_step=500" in commands[2] and "--to=" in " ".join(commands[2])
    assert all("--config.base.cache=bases" in command for command in commands)
    page = (tmp_path / "docs" / "online_table.md").read_text()
    assert page.count("\n| ") == 2 * (len(ROWS) + 3)

    again = campaign("--seeds=0,1", "--runs=runs")
    assert len(again) == len(ROWS) + 2 and not [command for command in again if "--config.seed=0" in command]
    assert campaign("--seeds=0,1", "--runs=runs", "--finished") == []


def test_rows_with_other_rewards_read_those_of_their_seed(campaign):
    campaign("--seeds=0,1", "--runs=runs")
    more = campaign("--seeds=0,1", "--runs=runs", "--rewards=runs/rewards")
    assert len(more) == 2 * len(OTHER_REWARDS)
    for seed, commands in enumerate((more[: len(OTHER_REWARDS)], more[len(OTHER_REWARDS) :])):
        for command in commands:
            model = f"runs/rewards/swapped_noun-and-own_answer-seed{seed}/model"
            assert {f"--config.rewards.model={model}", "--config.rewards.config="} <= set(command)


def test_a_seed_that_is_not_there_is_an_empty_cell():
    scores = dict.fromkeys(_HEADINGS, 41.4)
    table = seed_table({"rloo": {0: scores, 2: scores}, "ppo": {2: scores}})
    assert table.splitlines()[-1] == "| ppo |  | 41 / 41 / 41 |"
