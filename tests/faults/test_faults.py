"""What goes wrong with machines and disks: the run goes on with the same command, or says why it cannot."""

import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.tiny_runs import last_checkpoint, losses, run, start
from vla_jax.training.tracking import read_metrics

pytestmark = pytest.mark.slow

STEPS = 40
SETTINGS = (
    "base.config=",
    "base.cache=unused",
    "evaluation.scenes=0",
    f"train.steps={STEPS}",
    "checkpoint.every=2",
    "checkpoint.keep=3",
)
MODEL = "model/adapter.safetensors"


def trained(workdir: Path) -> bytes:
    return (workdir / MODEL).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = run("world_dpo", workdir, *SETTINGS)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The run, asked to stop on its way: its machine was taken back."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    process = start("world_dpo", workdir, *SETTINGS)
    while process.poll() is None and last_checkpoint(workdir) < 6:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0
    assert f"stopped at step {last_checkpoint(workdir)}, which is saved; go on with the same command" in said
    assert 6 <= last_checkpoint(workdir) < STEPS
    return workdir


@pytest.fixture
def half(stopped, tmp_path) -> Path:
    """A copy of the stopped run, to be broken."""
    return Path(shutil.copytree(stopped, tmp_path / "half"))


def test_a_machine_that_is_taken_back_before_the_first_step_ends_the_run_in_order(tmp_path):
    process = start("world_dpo", tmp_path / "run", *SETTINGS)
    while process.poll() is None and not (tmp_path / "run" / "config.json").is_file():
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and "go on with the same command" in said and "Traceback" not in said
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_truncated_checkpoint_is_set_aside_and_the_one_before_is_taken(half, whole):
    newest = last_checkpoint(half)
    largest = max((half / "checkpoints" / str(newest)).rglob("*"), key=lambda file: file.stat().st_size)
    data = largest.read_bytes()
    largest.write_bytes(data[: len(data) // 2])
    done = run("world_dpo", half, *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert f"the checkpoint of step {newest} cannot be read" in done.stdout
    assert (half / "checkpoints" / f"{newest}.damaged").is_dir()
    assert trained(half) == trained(whole)
    assert losses(half) == losses(whole)


def test_a_run_of_which_no_checkpoint_can_be_read_says_so(half):
    for file in (half / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    for _ in range(2):  # as often as it is tried: a launcher may start again by itself
        refused = run("world_dpo", half, *SETTINGS)
        assert refused.returncode == 1 and "Traceback" not in refused.stderr
        assert "remove the folder to begin anew" in refused.stderr


def test_a_corrupted_metrics_file_loses_its_bad_lines_only(half, whole):
    file = half / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], b"\xff\x00 {not json\n", *lines[2:], lines[0][:20]]))
    done = run("world_dpo", half, *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert losses(half) == losses(whole)
    assert trained(half) == trained(whole)


def test_a_changed_configuration_is_refused_with_the_difference(half):
    before = sorted(half.rglob("*"))
    refused = run("world_dpo", half, *SETTINGS, "optimizer.learning_rate=0.5", "seed=7")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "optimizer.learning_rate: " in refused.stderr and "-> 0.5" in refused.stderr
    assert "seed: 0 -> 7" in refused.stderr
    assert sorted(half.rglob("*")) == before


def test_a_full_disk_ends_the_run_in_one_line_and_costs_no_more_than_the_steps_since_the_last_checkpoint(
    half, whole
):
    saved = last_checkpoint(half)
    # Metrics go on, a checkpoint does not fit.
    failed = run("world_dpo", half, *SETTINGS, room=24_000)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: "), failed.stderr
    assert "Traceback" not in failed.stderr
    # It went on until a checkpoint was due, which did not fit.
    assert max(row["step"] for row in read_metrics(half / "metrics.jsonl")) > saved
    assert last_checkpoint(half) == saved
    done = run("world_dpo", half, *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert trained(half) == trained(whole)


def test_a_clock_that_jumps_back_an_hour_changes_nothing(half, whole):
    jumping = (
        "import time; real, calls = time.time, [0]\n"
        "def jumped():\n"
        "    calls[0] += 1\n"
        "    return real() - 3600 * (calls[0] > 20)\n"
        "time.time = jumped\n"
    )
    done = run("world_dpo", half, *SETTINGS, before=jumping)
    assert done.returncode == 0, done.stderr
    assert trained(half) == trained(whole)
    rows = read_metrics(half / "metrics.jsonl")
    assert len(rows) == STEPS
    assert all(value >= 0 for row in rows for name, value in row.items() if "second" in name)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a place where not even root may write")
def test_a_directory_that_cannot_be_written_is_one_line_before_anything_is_trained():
    refused = run("world_dpo", Path("/sys/kernel/run"), *SETTINGS)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    assert "/sys/kernel/run" in refused.stderr and "Traceback" not in refused.stderr
    assert "step/s" not in refused.stderr
