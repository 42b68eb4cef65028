"""One run in several real processes on this machine: the same losses, one end for all, any number of them."""

import re
import signal
import time

import numpy as np
import pytest

from tests.tiny_runs import last_checkpoint, losses, run, start_together

STEPS = 8
SETTINGS = (
    "base.config=",
    "evaluation.scenes=0",
    f"train.steps={STEPS}",
    "checkpoint.every=4",
    "data.length_multiple=8",
)


def finished(processes):
    """What each process printed as errors, once all have ended well."""
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses of the run in one process, all parameters trained and a text of its own length in each batch."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    done = run("world_lpoi", workdir, *SETTINGS, "lora.rank=0")
    assert done.returncode == 0, done.stderr
    return losses(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("count, mesh", [(2, ()), (4, ("mesh.data=2", "mesh.fsdp=2"))])
def test_several_processes_train_the_same_run(tmp_path, alone, count, mesh):
    finished(start_together(count, "world_lpoi", tmp_path / "run", *SETTINGS, "lora.rank=0", *mesh))
    together = losses(tmp_path / "run")
    assert len(together) == STEPS
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    assert alone[-1] < alone[0]


@pytest.mark.slow
def test_one_that_is_killed_ends_all_and_any_number_goes_on(tmp_path):
    settings = (*SETTINGS, "train.steps=80", "checkpoint.every=4", "train.batch_size=4")
    workdir = tmp_path / "run"
    processes = start_together(2, "world_dpo", workdir, *settings)
    while not last_checkpoint(workdir) and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    # A minute is what the others may take to notice.
    _, said = processes[0].communicate(timeout=60)
    assert processes[0].returncode
    # Which of the two notices first is a race: the run, or JAX's own watch.
    assert re.search("another process of this run failed|another task died", said)
    assert "Traceback" not in said
    saved = last_checkpoint(workdir)
    assert 0 < saved < 80

    # SIGTERM to one of two: both save the same step and end well.
    processes = start_together(2, "world_dpo", workdir, *settings)
    while last_checkpoint(workdir) <= saved and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    for said in finished(processes):
        assert "go on with the same command" in said
    assert saved < last_checkpoint(workdir) < 80

    done = run("world_dpo", workdir, *settings)
    assert done.returncode == 0, done.stderr
    whole = run("world_dpo", tmp_path / "whole", *settings)
    assert whole.returncode == 0, whole.stderr
    np.testing.assert_allclose(losses(workdir), losses(tmp_path / "whole"), atol=1e-4, rtol=0)
