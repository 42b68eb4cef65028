"""Metrics survive a kill: a resumed run goes on exactly behind its checkpoint."""

import json
import sys
import types

import numpy as np
import pytest

from vla_jax.report.curves import charts
from vla_jax.training.tracking import Tracker, WandbConfig, read_metrics


def log(workdir, start, steps):
    tracker = Tracker(workdir, start, steps=9, batch_size=2, title="test")
    for step in steps:
        tracker.log(step, {"loss": float(step)})
    tracker.close()


def test_rows_hold_step_loss_and_speed(tmp_path):
    log(tmp_path, 0, [1, 2])
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 2.0)]
    assert all(row["examples_per_second"] > 0 for row in rows)
    assert list((tmp_path / "tensorboard").iterdir())


def test_rows_behind_the_checkpoint_are_dropped_on_resume(tmp_path):
    log(tmp_path, 0, [1, 2, 3, 4])
    log(tmp_path, 2, [3])
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_a_line_torn_by_a_kill_is_dropped(tmp_path):
    log(tmp_path, 0, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    log(tmp_path, 2, [3])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_smoothed_metrics_are_the_means_weighed_by_their_age_also_after_a_restart(tmp_path):
    values = np.random.default_rng(0).normal(size=9)
    for start, stop in ((0, 6), (4, 9)):
        with Tracker(tmp_path, start, steps=9, batch_size=2, title="test") as tracker:
            for step in range(start, stop):
                tracker.log(
                    step + 1, {"loss": values[step], "rewards/margins": -values[step], "grad_norm": 1.0}
                )
            # An evaluation is no part of them.
            tracker.log_evaluation(stop, {"eval_loss": 100.0})
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert len(rows) == 9 and "ema/grad_norm" not in rows[0] and "ema/rewards/accuracies" not in rows[0]
    for count, row in enumerate(rows, start=1):
        weights = 0.98 ** np.arange(count)[::-1]
        assert row["ema/loss"] == pytest.approx(np.average(values[:count], weights=weights))
        assert row["ema/rewards/margins"] == pytest.approx(-row["ema/loss"])


def test_memory_held_is_logged_and_what_is_not_finite_is_not(tmp_path):
    with Tracker(tmp_path, 0, steps=1, batch_size=2, title="test") as tracker:
        tracker.log(1, {"loss": float("nan"), "grad_norm": 2.0})
        tracker.log_evaluation(1, {"eval_loss": float("inf"), "eval_rewards/margins": 2.0})
    row, evaluation = read_metrics(tmp_path / "metrics.jsonl")
    assert evaluation == {"step": 1, "eval_rewards/margins": 2.0}
    assert 0.01 < row["memory/host_gib"] < 1e4
    assert "loss" not in row and "ema/loss" not in row and row["grad_norm"] == 2.0


def test_rows_of_evaluations_lie_beside_the_steps_and_disturb_no_curve(tmp_path):
    with Tracker(tmp_path, 0, steps=3, batch_size=2, title="test") as tracker:
        for step in (1, 2, 3):
            tracker.log(step, {"loss": float(step)})
        tracker.log_evaluation(3, {"eval_loss": 0.5, "eval_rewards/margins": 1.0})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1] == {"step": 3, "eval_loss": 0.5, "eval_rewards/margins": 1.0}
    drawn = charts(rows)
    assert drawn[0].title == "Loss" and not any(chart.note for chart in drawn)
    assert ">held out<" in drawn[0].svg and ">held out<" not in charts(rows[:-1])[0].svg


def test_wandb_that_is_not_installed_is_one_line_and_leaves_nothing_open(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        ModuleNotFoundError, match="^tracking.project is set, and wandb is not .*''$"
    ) as refused:
        Tracker(tmp_path, 0, 9, 2, "test", WandbConfig("project"))
    assert refused.value.__suppress_context__ and not list(tmp_path.iterdir())


@pytest.fixture
def wandb(monkeypatch):
    """What is asked of a wandb that only listens: (settings of a run, its rows), run by run."""
    runs = []

    def init(**settings):
        rows = []
        runs.append((settings, rows))
        return types.SimpleNamespace(
            log=lambda row, step: rows.append({"step": step, **row}), finish=lambda: rows.append("finished")
        )

    ids = iter(("first", "second"))
    module = types.SimpleNamespace(init=init, util=types.SimpleNamespace(generate_id=lambda: next(ids)))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_wandb_has_the_rows_of_the_file_and_knows_a_run_that_goes_on(tmp_path, wandb):
    (tmp_path / "run").mkdir()
    for start, stop in ((0, 3), (2, 4)):
        config = WandbConfig("project")
        with Tracker(tmp_path / "run", start, 9, 2, "test", config, {"seed": 5}) as tracker:
            for step in range(start, stop):
                tracker.log(step + 1, {"loss": float(step)})
            tracker.log_evaluation(stop, {"eval_loss": 0.5})
    (first, _), (second, rows) = wandb
    assert (
        first
        == second
        == {
            "project": "project",
            "name": "run",
            "id": "first",
            "resume": "allow",
            "dir": str(tmp_path / "run"),
            "config": {"seed": 5},
        }
    )
    assert rows == [*read_metrics(tmp_path / "run" / "metrics.jsonl")[-3:], "finished"]
