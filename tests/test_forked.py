"""A forked command finds what it would find had Python been started anew, and ends as it would end."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.forked import ROOT, Forked, run

# Stands before a command that is then not run.
LOOK = """
import json, os, signal, sys, threading
import jax
from jax._src import xla_bridge
print(json.dumps({
    "backends": list(xla_bridge._backends),
    "flags": {name: str(value) for name, value in jax.config.values.items()},
    "threads": threading.active_count(),
    "folder": os.getcwd(),
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "signals": [repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
}))
raise SystemExit(0)
"""
CHANGED = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": "elsewhere", "XLA_FLAGS": "--no_such_flag"}


def before(code: str) -> Forked:
    return Forked("vla_jax.convert", before=code)


def ended(process: Forked) -> tuple[int | None, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_it_finds_what_a_fresh_process_finds():
    arguments = ("--from=a", "b c")
    variables = {**os.environ, **CHANGED}
    fresh = subprocess.run(
        [sys.executable, "-c", LOOK, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert fresh.returncode == 0, fresh.stderr
    forked = run("vla_jax.convert", *arguments, environment=CHANGED, before=LOOK)
    assert forked.returncode == 0, forked.stderr
    assert json.loads(forked.stdout) == json.loads(fresh.stdout)


def test_what_it_is_forked_from_has_imported_the_commands_and_started_no_thread():
    code = (
        "import os, sys; print('vla_jax.train' in sys.modules, len(os.listdir(f'/proc/{os.getppid()}/task')))"
    )
    assert ended(before(f"{code}; raise SystemExit")) == (0, "True 1\n", "")


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('words')", 1, "words\n"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM, ""),
        ("import atexit, sys; atexit.register(sys.stderr.write, 'last'); raise SystemExit", 0, "last"),
    ],
)
def test_it_ends_as_python_does(code, status, said):
    assert ended(before(code)) == (status, "", said)


def test_an_error_is_shown_where_it_was_raised():
    status, _, errors = ended(before("1 / 0"))
    assert status == 1
    assert errors.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_it_can_be_told_to_stop_and_is_killed_when_it_does_not_end():
    waiting = "import time\nwhile True:\n    time.sleep(0.01)"
    stopped = before(waiting)
    stopped.send_signal(signal.SIGTERM)
    assert ended(stopped) == (-signal.SIGTERM, "", "")
    endless = before(waiting)
    with pytest.raises(subprocess.TimeoutExpired):
        endless.communicate(timeout=0.1)
    assert ended(endless)[0] == -signal.SIGKILL


def test_a_file_has_no_more_room_than_it_is_given(tmp_path):
    code = f"open({str(tmp_path / 'file')!r}, 'wb', buffering=0).write(bytes(2000)); raise SystemExit(0)"
    run("vla_jax.convert", before=code, room=1000)
    assert (tmp_path / "file").stat().st_size == 1000
