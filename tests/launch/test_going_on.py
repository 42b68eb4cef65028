"""After a preemption, a time limit or an eviction a run goes on; after an error of its own it does not."""

import os
import signal
import subprocess
import time

import pytest

from tests.launch.commands import REPOSITORY

# A TPU that is there once it was asked for, and is gone with its first training.
GCLOUD = """
cd '{folder}'
case "$*" in
  *describe*)
    cat state || {{ echo 'ERROR: NOT_FOUND: Resource was not found.' >&2; exit 1; }} ;;
  *queued-resources\\ create*)
    echo ACTIVE > state ;;
  *delete*)
    rm state ;;
  *systemd-run*)
    [ -e preempted ] || {{ touch preempted; echo SUSPENDED > state; exit 255; }} ;;
esac
"""
KEEP = (
    "keep",
    "--name=pod",
    "--zone=z",
    "--type=v6e-8",
    "--runtime=v2-alpha-tpuv6e",
    "--shared=10.0.0.2:/vol",
    "--config=configs/llava15_7b_dpo.py",
    "--workdir=/mnt/shared/run",
    "--poll=0",
)


def steps(tools):
    """What the cloud was asked to do, in order, without looks at its state."""
    names = {"create": "create", "delete": "delete", "systemd-run": "train", "test -f": "finished?"}
    calls = [" ".join(call) for call in tools.calls()]
    return [
        name for call in calls for part, name in names.items() if call.startswith("gcloud") and part in call
    ]


def test_a_preempted_tpu_is_replaced_and_the_same_command_goes_on(tools):
    tools.write("gcloud", GCLOUD.format(folder=tools.folder))
    assert tools.launch("tpu_vm.sh", *KEEP).returncode == 0
    assert steps(tools) == ["create", "train", "delete", "create", "train", "finished?"]


def test_a_run_that_fails_on_a_tpu_that_stays_is_given_up(tools):
    tools.write("gcloud", 'case "$*" in *describe*) echo ACTIVE ;; *systemd-run*) exit 1 ;; esac')
    done = tools.launch("tpu_vm.sh", *KEEP)
    assert done.returncode == 1 and "failed three times" in done.stderr
    assert steps(tools) == ["train"] * 3


def test_a_request_that_fails_is_not_repeated(tools):
    tools.write("gcloud", "echo FAILED")
    done = tools.launch("tpu_vm.sh", *KEEP)
    assert done.returncode == 1 and "the request for pod failed" in done.stderr and steps(tools) == []


@pytest.mark.parametrize(
    ("status", "finished", "queued_again"), [(0, False, True), (0, True, False), (1, False, False)]
)
def test_slurm_queues_a_stopped_run_again(status, finished, queued_again, tools, tmp_path):
    tools.write("srun", f"exit {status}")
    if finished:
        (tmp_path / "summary.json").touch()
    run = ("--config=configs/llava15_7b_dpo.py", f"--workdir={tmp_path}")
    assert tools.launch("slurm.sh", *run, SLURM_JOB_ID="7").returncode == status
    assert (["scontrol", "requeue", "7"] in tools.calls()) == queued_again


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 75), ("exit 3", 3), ('touch "$2/summary.json"', 0)]
)
def test_a_container_ends_well_only_with_its_run(script, status, tools, tmp_path):
    command = ("bash", "-c", script.replace("$2", str(tmp_path)), "train", f"--workdir={tmp_path}")
    assert tools.launch("until_finished.sh", *command).returncode == status


def test_a_container_passes_sigterm_on_and_is_started_again(tmp_path):
    # It saves, as the trainer does, and exits with 0.
    trainer = (
        f"trap 'touch {tmp_path}/saved; exit 0' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    )
    command = ["bash", "-c", trainer, "train", f"--workdir={tmp_path}"]
    process = subprocess.Popen([REPOSITORY / "launch" / "until_finished.sh", *command])
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 75 and (tmp_path / "saved").exists()
