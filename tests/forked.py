"""Commands in processes of their own, each forked from one that has imported what they import.

Importing takes about six seconds of a core, several times what a small run takes; here it happens once for
every worker of the suite. All else is as if Python had been started anew: process id, signals, memory,
environment, JAX and exit. `tests/test_train.py` and `tests/test_convert.py` start Python itself too.
"""

import atexit
import multiprocessing
import os
import resource
import runpy
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

ROOT = Path(__file__).parents[1]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["vla_jax.train", "vla_jax.convert", "vla_jax.construct", "tests.forked"])


class Forked:
    """A running `python -m module arguments`, with what tests use of `subprocess.Popen`'s interface.

    Args:
      module: the command.
      arguments: its command line.
      environment: variables that differ from this process's; None for those that it shall not have.
      room: how many bytes a file may take; None for any number.
      before: a program to run first, in the same process.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str | None] | None = None,
        room: int | None = None,
        before: str = "",
    ):
        changed = {**os.environ, **(environment or {})}
        kept = {name: value for name, value in changed.items() if value is not None}
        self.args = (module, *arguments)
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        # Ended with this process, whatever becomes of the test.
        self._process = _FORKS.Process(
            target=_become, args=(self.args, self._files, kept, room, before), daemon=True
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Its exit status, the negative number of the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends it a signal."""
        if self._process.pid is not None and self.poll() is None:
            os.kill(self._process.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it wrote to stdout and to stderr, once it has ended.

        Raises:
          TimeoutExpired: where it has not in so many seconds; it is killed.
        """
        self._process.join(timeout)
        if self.poll() is None:
            self._process.kill()
            raise TimeoutExpired(self.args, timeout)
        output, errors = (file.read_text() if file.exists() else "" for file in self._files)
        return output, errors


def run(module: str, *arguments: str, timeout: float = 600, **settings: Any) -> CompletedProcess[str]:
    """Runs a command to its end; `settings` are `Forked`'s."""
    process = Forked(module, *arguments, **settings)
    output, errors = process.communicate(timeout)
    assert process.returncode is not None
    return CompletedProcess(process.args, process.returncode, output, errors)


def _become(
    arguments: Sequence[str],
    output: Sequence[Path],
    environment: Mapping[str, str],
    room: int | None,
    before: str,
) -> None:
    """The command in its process: as Python begins it, runs it and ends."""
    for descriptor, file in enumerate(output, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), descriptor)
    imported_under = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A daemon may have no processes of its own, a command may.
    multiprocessing.current_process()._config["daemon"] = False
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    sys.argv = list(arguments)
    # What was imported beforehand is not what runs.
    sys.modules.pop(arguments[0], None)
    code: object = 0
    try:
        _read_jax_environment(imported_under)
        exec(before, {})
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr, flush=True)
    atexit._run_exitfuncs()
    sys.exit(1 if isinstance(code, str) else code)


def _read_jax_environment(imported_under: Mapping[str, str]) -> None:
    """Gives JAX its variables that differ from those it was imported under, which is when it reads them."""
    import jax

    for name in {*os.environ, *imported_under}:
        if not name.startswith("JAX_") or os.environ.get(name) == imported_under.get(name):
            continue
        if name not in ("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR"):
            raise ValueError(f"{name}: JAX has read it already")
        jax.config.update(name.lower(), os.environ.get(name))
