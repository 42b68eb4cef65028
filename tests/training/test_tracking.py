"""Metrics survive a kill: a resumed run goes on exactly behind its checkpoint."""

import json

from vla_jax.training.tracking import Tracker, read_metrics


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
