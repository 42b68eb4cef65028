"""A request to stop: noted once, then acting as usual, and gone with the loop."""

import os
import signal
import subprocess
import sys

import pytest

from vla_jax.training.stopping import StopRequest


@pytest.fixture
def former():
    """What SIGTERM did before: it is written down."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


def ask(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_noted_and_asks_after_every_step_from_then_on(former, number):
    with StopRequest() as stop:
        assert stop.after(1) is None
        ask(number)
        assert stop.after(2) == stop.after(3) == number
    assert former == []


def test_a_second_one_acts_as_usual(former):
    with StopRequest() as stop:
        ask(signal.SIGTERM)
        ask(signal.SIGTERM)
        assert former == [signal.SIGTERM] and stop.after(1) == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt), StopRequest():
        ask(signal.SIGINT)
        ask(signal.SIGINT)


def test_handlers_are_restored_whether_or_not_it_was_asked(former):
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    for asked in (False, True):
        with StopRequest():
            assert all(signal.getsignal(number) not in before for number in numbers)
            if asked:
                ask(signal.SIGTERM)
        assert [signal.getsignal(number) for number in numbers] == before
    ask(signal.SIGTERM)
    assert former == [signal.SIGTERM]


def test_each_loop_begins_without_a_request(former):
    stop = StopRequest()
    with stop:
        ask(signal.SIGTERM)
    with stop:
        assert stop.after(1) is None


LOST = """
import gc, os, signal, sys, time
from vla_jax.training.stopping import ask_again

def during(phase, info):
    gc.callbacks.remove(during)
    os.kill(os.getpid(), {number})

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
sys.unraisablehook = ask_again
gc.callbacks.append(during)
try:
    gc.collect()
    print("the callback is over", flush=True)
    time.sleep(20)
except KeyboardInterrupt:
    sys.exit(4)
print("it was lost")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 3), (signal.SIGINT, 4)])
def test_one_that_comes_while_the_garbage_collector_calls_is_not_lost(number, code):
    ended = subprocess.run(
        [sys.executable, "-c", LOST.format(number=int(number))], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (code, "the callback is over\n"), ended.stderr
