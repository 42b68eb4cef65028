"""Where there is no GPU nothing is measured, and figures become lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import Session, _options, main, ratios, responses, summary
from benchmarks.gpu_inputs import Job, Measured

REPOSITORY = Path(__file__).resolve().parents[2]
OURS = Measured("dpo, online reference, xla attention", 8, [2.0, 1.0, 4.0], 8000, 6 * 10**12, 60.0, 2**34)
CACHED = Measured("dpo, cached reference, xla attention", 4, [1.0])
FUSED = Measured("dpo, online reference, cudnn attention", 8, [1.0])
TRL = Measured("TRL, with gradient checkpointing", 2, [3.0])
FASTER_TRL = Measured("TRL, without gradient checkpointing", 1, [1.0])


def test_without_a_gpu_it_says_so_and_is_done():
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "no GPU here (JAX finds: cpu cpu); nothing was measured\n"


def test_a_summary_divides_by_the_median():
    line = summary(OURS, peak=6e12, sheet=12e12)
    assert "8 pairs, 2.000 s a step (1.000 to 4.000, 3 steps), 4,000 tokens/s, 3.0 TFLOP/s" in line
    assert "MFU 50.0% of the measured peak, 25.0% of the data sheet's" in line
    assert line.endswith("compiled in 60 s; 16.0 GiB")


def test_ratios_are_of_seconds_a_pair_and_those_to_trl_as_it_comes_stand_last():
    assert list(ratios([FUSED, OURS, CACHED, TRL, FASTER_TRL])) == [
        "to TRL without checkpointing: ratio online 4.00",
        "to TRL without checkpointing: ratio cached 4.00",
        "ratio online 6.00",
        "ratio cached 6.00",
    ]


def test_responses_stand_beside_each_of_the_others():
    ours = [{"responses": "ours", "taken": {"greedy": [2.0], "greedy, first token": [1.0]}}]
    theirs = [
        {"responses": name, "taken": {"transformers": [seconds], "transformers, first token": [1.0]}}
        for name, seconds in (("eager", 4.0), ("static", 1.5))
    ]
    said = list(responses(ours, theirs))
    assert [line for line in said if "beside" in line] == ["ours beside eager:", "ours beside static:"]
    assert [line for line in said if line.startswith("ratio")] == [
        "ratio generate 2.00",
        "ratio decoding 3.00",
        "ratio generate 0.75",
        "ratio decoding 0.50",
    ]
    assert not list(responses(ours, []))


@pytest.mark.parametrize("missing", [OURS, TRL])
def test_there_is_no_ratio_without_both_sides(missing):
    assert "ratio online" not in " ".join(ratios([m for m in (OURS, TRL) if m is not missing]))


def test_a_stage_reads_what_it_was_given(tmp_path, monkeypatch):
    job = Job(str(tmp_path / "checkpoint"), True, 4, 2, references=("online", "cached"))
    monkeypatch.setattr(sys, "argv", ["stage", *job.arguments()])
    assert Job.from_command_line() == job


def test_a_stage_that_fails_keeps_what_it_added(tmp_path, monkeypatch, capfd):
    (tmp_path / "stage.py").write_text(
        "from benchmarks.gpu_inputs import Job\nJob.from_command_line().say(pairs=4)\nraise SystemExit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    monkeypatch.setattr(sys, "argv", ["gpu"])
    session = Session(_options(), tmp_path)
    assert session.run("stage", session.job) == [{"pairs": 4}]
    assert "stage: FAILED with exit code 3" in capfd.readouterr().out
    assert session.failed == ["stage: FAILED with exit code 3"]


@pytest.mark.parametrize("agrees", [True, False])
def test_it_fails_where_gpu_and_cpu_do_not_agree(monkeypatch, capsys, agrees):
    found = {
        "benchmarks.gpu_device": [{"platform": "gpu", "kind": "H100", "peak": 1e12}],
        "benchmarks.gpu_parity": [
            {"parity": "dpo, gpu = cpu", "agrees": True},
            {"parity": "lpoi, gpu = cpu", "agrees": agrees},
        ],
    }
    monkeypatch.setattr(Session, "run", lambda session, module, job: found[module])
    monkeypatch.setattr(sys, "argv", ["gpu", "--stages", "parity"])
    if agrees:
        main()
    else:
        with pytest.raises(SystemExit, match="error: lpoi, gpu = cpu: DOES NOT AGREE"):
            main()
    assert "dpo, gpu = cpu: agrees" in capsys.readouterr().out
