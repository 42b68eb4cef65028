"""Alarms on logs of runs that collapse, and on some that do not."""

import pytest

from vla_jax.training.alarms import AlarmConfig, Collapsed, Watch, alarms

SOUND = {
    "completions/repetition": 0.02,
    "completions/sameness": 0.1,
    "completions/mean_length": 12.0,
    "kl": 0.1,
}
CONFIG = AlarmConfig(window=3)
COLLAPSES = {
    "completions/repetition": 0.8,
    "completions/sameness": 0.95,
    "completions/mean_length": 30.0,
    "kl": 2.0,
}


def log(metric, values):
    return [SOUND | {metric: value} for value in values]


@pytest.mark.smoke
@pytest.mark.parametrize("metric, value", [*COLLAPSES.items(), ("completions/mean_length", 2.5)])
def test_a_mean_out_of_bounds_raises_the_alarm_of_its_metric(metric, value):
    sound = [SOUND] * 5
    (alarm,) = alarms([*sound, *log(metric, [value] * 3)], CONFIG)
    assert (alarm.metric, alarm.value) == (metric, pytest.approx(value))
    side = "below" if value == 2.5 else "above"
    assert str(alarm) == f"{metric} is {value:.3g}, {side} {alarm.bound:.3g}"
    assert alarms(sound, CONFIG) == []


def test_lengths_are_compared_with_those_of_the_first_window():
    (alarm,) = alarms(log("completions/mean_length", [10, 11, 12, 16, 24, 27]), CONFIG)
    assert alarm.value == pytest.approx(67 / 3) and alarm.bound == 22
    (alarm,) = alarms(log("completions/mean_length", [10, 11, 12, 6, 5, 5]), CONFIG)
    assert alarm.value == pytest.approx(16 / 3) and alarm.bound == 5.5
    assert alarms(log("completions/mean_length", [10, 11, 12, 20, 20, 20]), CONFIG) == []


def test_one_bad_step_is_no_collapse_and_neither_is_a_log_shorter_than_the_window():
    assert alarms([*[SOUND] * 5, SOUND | {"kl": 2.5}], CONFIG) == []
    assert alarms(log("kl", [5.0, 5.0]), CONFIG) == []


def test_what_is_not_watched_raises_nothing():
    collapsed = [SOUND] * 3 + [COLLAPSES] * 3
    assert len(alarms(collapsed, CONFIG)) == 4
    unwatched = AlarmConfig(window=3, repetition=0, sameness=0, length_ratio=0, kl=0)
    assert alarms(collapsed, unwatched) == []
    assert alarms(collapsed, AlarmConfig(action="off", window=3)) == []
    assert alarms([{"loss": 1.0}] * 9, CONFIG) == []  # a run that samples nothing


def heard(watch, rows, checkpoints=()):
    return [[alarm.metric for alarm in watch.new(i + 1, row, checkpoints)] for i, row in enumerate(rows)]


def test_an_alarm_is_told_once_each_time_it_begins():
    rows = log("kl", [0.1, 0.1, 3.5, 3.5, 3.5, 0.1, 0.1, 0.1, 4.0])
    assert heard(Watch(CONFIG), rows) == [[], [], ["kl"], [], [], [], [], [], ["kl"]]


def test_a_watch_compares_with_the_first_window_however_long_the_run():
    rows = log("completions/mean_length", [10.0] * 50 + [25.0] * 3)
    assert heard(Watch(CONFIG), rows)[-1] == ["completions/mean_length"]


def test_a_run_that_goes_on_remembers_what_it_had_logged():
    rows = log("completions/mean_length", [10, 10, 10, 10, 25, 25, 25, 25])
    whole = heard(Watch(CONFIG), rows)
    assert whole[6] == ["completions/mean_length"]
    for cut in range(len(rows)):
        assert heard(Watch(CONFIG, rows[:cut]), rows[cut:]) == whole[cut:]


def test_a_run_that_is_to_stop_names_metric_value_step_and_the_last_checkpoint_from_before():
    stopping = AlarmConfig(action="stop", window=3)
    rows = [SOUND] * 6 + log("kl", [0.9, 1.5, 1.8])
    told = (
        "^the policy has collapsed: kl is 1.4, above 1, the mean of the 3 steps up to step 9; the last "
        "checkpoint from before them is step 4. Lower"
    )
    with pytest.raises(Collapsed, match=told):
        heard(Watch(stopping), rows, checkpoints=(2, 4, 8))
    with pytest.raises(Collapsed, match="no checkpoint from before them is kept"):
        heard(Watch(stopping), rows, checkpoints=(8,))


def test_a_run_that_is_to_stop_does_so_though_the_alarm_began_before_it_was_started_again():
    rows = log("kl", [2.0] * 3)
    with pytest.raises(Collapsed, match="step 1"):
        heard(Watch(AlarmConfig(action="stop", window=3), rows), log("kl", [2.0]))


@pytest.mark.parametrize(
    "fields, complaint",
    [
        ({"action": "shout"}, "alarms.action is 'shout'; choose one of warn, stop, off"),
        ({"window": 0}, "alarms.window is 0; it must be at least 1"),
        ({"kl": -1.0}, "alarms.kl is -1.0; give a bound"),
        ({"length_ratio": 0.5}, "alarms.length_ratio is 0.5; give one above 1, or 0"),
    ],
)
def test_what_cannot_be_watched_is_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        AlarmConfig(**fields)
