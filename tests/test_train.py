"""The whole path from one command, on a model of a few thousand parameters."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.forked import ROOT
from tests.shared_data import shared
from tests.tiny_runs import TRAIN, flags, last_checkpoint, losses, run, start
from vla_jax.training.tracking import read_metrics


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A supervised model of four steps, whose run is looked at too."""
    workdir = tmp_path_factory.mktemp("runs") / "sft"
    command = flags("world_sft", workdir, "base.config=", "train.steps=4", "checkpoint.every=2")
    done = subprocess.run(
        [sys.executable, "-m", TRAIN, *command], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_finished_run_leaves_everything_it_promises(base):
    expected = {
        "config.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "model",
        "summary.json",
        "report.html",
    }
    assert expected <= {file.name for file in base.iterdir()}
    assert len(losses(base)) == 4
    assert run("world_sft", base, "base.config=", "train.steps=4", "checkpoint.every=2").returncode == 0


def test_a_finished_run_refuses_another_configuration(base):
    refused = run("world_sft", base, "base.config=", "train.steps=5", "checkpoint.every=2")
    assert refused.returncode == 1
    assert "train.steps: 4 -> 5" in refused.stderr
    assert "Traceback" not in refused.stderr


ALIGN = ("base.config=", "train.steps=3", "checkpoint.every=1", "evaluation.scenes=3")


@pytest.mark.parametrize(
    "recipe, setting", [("lpoi", "evaluation.saliency=True"), ("adavip", "reference.mode=cached")]
)
def test_alignment_measures_before_and_after_and_starts_at_the_reference(base, tmp_path, recipe, setting):
    workdir = tmp_path / recipe
    done = run(f"world_{recipe}", workdir, *ALIGN, f"base.model={base}", setting)
    assert done.returncode == 0, done.stderr
    summary = json.loads((workdir / "summary.json").read_text())
    keys = {"chair_s", "chair_i", "recall", "pope_f1", "pope_accuracy", "pope_yes_ratio", "n"}
    assert keys <= summary["before"].keys() and keys <= summary["after"].keys()
    assert (summary["recipe"], summary["seed"], summary["before"]["n"]) == (recipe, 0, 3)
    first = read_metrics(workdir / "metrics.jsonl")[0]
    assert abs(first["rewards/margins"]) <= (1e-6 if "cached" in setting else 0)
    report = (workdir / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert ("loss by pixel, after" in report) == ("saliency" in setting)


def test_killed_at_any_step_and_started_again_it_ends_in_the_same_bits(base, tmp_path):
    settings = (
        "base.config=",
        f"base.model={base}",
        "train.steps=60",
        "checkpoint.every=1",
        "evaluation.scenes=0",
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("world_dpo", whole, *settings).returncode == 0

    saved, first = 0, None
    for stop, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0), (signal.SIGINT, 130)):
        process = start("world_dpo", killed, *settings)
        while process.poll() is None and last_checkpoint(killed) <= saved:
            time.sleep(0.005)
        process.send_signal(stop)
        process.communicate(timeout=120)
        assert process.returncode == code
        assert not (killed / "summary.json").exists()
        saved = last_checkpoint(killed)
        # The first step's timings cannot come out alike twice: it was not repeated.
        first = first or read_metrics(killed / "metrics.jsonl")[0]
        assert read_metrics(killed / "metrics.jsonl")[0] == first
    assert run("world_dpo", killed, *settings).returncode == 0
    assert losses(killed) == losses(whole) and len(losses(whole)) == 60
    assert read_metrics(killed / "metrics.jsonl")[0] == first
    model = "model/adapter.safetensors"
    assert (killed / model).read_bytes() == (whole / model).read_bytes()


@pytest.mark.parametrize(
    "setting, says",
    [
        ("nonsense=1", "nonsense"),
        ("recipe=nonsense", "choose one of"),
        ("data.source=nonsense", "choose one of"),
        ("options.lpoi.num_views=4", "would ignore it"),
        ("base.model=/nowhere/at/all", "no model here"),
    ],
)
def test_a_wrong_argument_is_one_line_and_leaves_nothing(tmp_path, setting, says):
    refused = run("world_dpo", tmp_path / "run", "base.config=", setting)
    assert refused.returncode != 0
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_judge_that_is_not_there_is_told_before_anything_is_made(tmp_path):
    settings = ("rewards.config=", "rewards.judge.kind=no_such_module:f")
    refused = run("world_online_dpo", tmp_path / "run", *settings)
    assert refused.returncode == 1 and "'no_such_module:f', which cannot be imported" in refused.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "base").exists()


FOLDER = ("base.config=", "train.steps=2", "checkpoint.every=1", "data.max_completion_length=96")


@pytest.mark.parametrize("recipe", ["dpo", "lpoi"])
def test_real_photographs_train_and_are_measured(tmp_path, base, recipe):
    path = shared("photos") / "preference.jsonl"
    settings = (*FOLDER, f"base.model={base}", f"data.path={path}", f"recipe={recipe}")
    done = run("preference_folder", tmp_path / "run", *settings)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["records"], summary["after"]["n"]) == (25, 25)
    if recipe == "lpoi":
        assert "central object prior (25)" in done.stdout


def test_a_bad_record_is_named_or_skipped_and_listed(tmp_path, base):
    photos = shared("photos")
    lines = (photos / "preference.jsonl").read_text().splitlines()[:6]
    (tmp_path / "images").symlink_to(photos / "images")
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([*lines, lines[0].replace("000000002703", "nowhere"), lines[1][:40]]))
    settings = (*FOLDER, f"base.model={base}", f"data.path={path}")
    refused = run("preference_folder", tmp_path / "error", *settings)
    assert refused.returncode == 1
    assert f"{path}, line 8" in refused.stderr and "Traceback" not in refused.stderr
    assert not (tmp_path / "error").exists()

    # More than may be: they are listed, and nothing is trained.
    skip = (*settings, "data.on_bad_record=skip")
    too_many = run("preference_folder", tmp_path / "skip", *skip, "data.max_bad_fraction=0.2")
    assert too_many.returncode == 1 and "with it 2 records are bad, and 1 may be" in too_many.stderr
    assert [file.name for file in (tmp_path / "skip").iterdir()] == ["bad_records.jsonl"]

    skipped = run("preference_folder", tmp_path / "skip", *skip, "data.max_bad_fraction=0.25")
    assert skipped.returncode == 0, skipped.stderr
    listed = [json.loads(line) for line in (tmp_path / "skip" / "bad_records.jsonl").read_text().splitlines()]
    assert sorted(row["record"] for row in listed) == ["line 7", "line 8"]
    assert all(row["problem"] and row["remedy"] for row in listed)
    assert json.loads((tmp_path / "skip" / "summary.json").read_text())["skipped_records"] == 2


def test_a_folder_that_names_no_objects_trains_and_says_that_nothing_is_measured(tmp_path, base):
    photos = shared("photos")
    rows = [json.loads(line) for line in (photos / "preference.jsonl").read_text().splitlines()[:4]]
    (tmp_path / "images").symlink_to(photos / "images")
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({k: row[k] for k in row if k != "objects"}) + "\n" for row in rows))
    done = run("preference_folder", tmp_path / "run", *FOLDER, f"base.model={base}", f"data.path={path}")
    assert done.returncode == 0, done.stderr
    assert "CHAIR is not measured" in done.stdout
    assert "after" not in json.loads((tmp_path / "run" / "summary.json").read_text())


@pytest.mark.parametrize(
    "setting, says",
    [
        ("data.source=nonsense", "choose one of"),
        ("data.on_bad_record=nonsense", "choose one of error, skip"),
        ("optimizer.schedule=nonsense", "choose one of"),
    ],
)
def test_what_is_wrong_shows_before_a_base_model_is_made(tmp_path, setting, says):
    refused = run("world_dpo", tmp_path / "run", setting)
    assert refused.returncode == 1 and says in refused.stderr and "Traceback" not in refused.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "base").exists()


def test_a_directory_of_another_run_is_refused_before_a_base_model_is_made(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    refused = run("world_dpo", tmp_path / "run")
    assert refused.returncode == 1 and "no run of ours" in refused.stderr
    assert not (tmp_path / "base").exists()
