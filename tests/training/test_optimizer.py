"""Schedules reach their marks."""

import pytest

from vla_jax.training.optimizer import OptimizerConfig, make_schedule


@pytest.mark.parametrize("name, last", [("constant", 1.0), ("linear", 0.0), ("cosine", 0.0)])
def test_the_rate_rises_to_its_peak_and_falls_as_named(name, last):
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, schedule=name, warmup_ratio=0.1), steps=100)
    assert 0 < float(schedule(0)) < 0.1
    assert float(schedule(10)) == pytest.approx(1.0)
    assert float(schedule(100)) == pytest.approx(last, abs=1e-6)


def test_an_unknown_schedule_is_refused_with_the_choice():
    with pytest.raises(ValueError, match="choose one of constant, linear, cosine"):
        OptimizerConfig(schedule="sawtooth")
