"""How a process finds out that it is one of several."""

import pytest

from vla_jax.parallel import connect, processes


@pytest.mark.parametrize(
    ("environment", "together"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "16"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, False),
    ],
)
def test_schedulers_say_whether_there_are_others(environment, together, tmp_path):
    assert processes._started_together(environment, tmp_path) == together


@pytest.mark.parametrize(
    ("chip", "library", "together"),
    [("accel0", False, True), ("vfio/0", True, True), ("vfio/0", False, False), ("vfio/vfio", True, False)],
)
def test_a_tpu_shows_by_its_chips(chip, library, together, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "find_spec", lambda name: name if library else None)
    (tmp_path / chip).parent.mkdir(exist_ok=True)
    (tmp_path / chip).touch()
    assert processes._started_together({}, tmp_path) == together


def test_flags_that_belong_together_are_asked_for():
    with pytest.raises(ValueError, match="give all three"):
        connect(coordinator="localhost:1234")
