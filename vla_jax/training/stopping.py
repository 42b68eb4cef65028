"""How a run is asked to stop: by Ctrl-C, or by the SIGTERM with which schedulers take a machine back."""

import os
import signal
import sys
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


def ask_again(lost: "sys.UnraisableHookArgs") -> None:
    """A `sys.unraisablehook` for which no request to stop is lost.

    What a signal's handler raises while a callback of the garbage collector runs, Python prints and forgets.
    The signal is sent once more, when the callback is over.
    """
    for raised, number in ((SystemExit, signal.SIGTERM), (KeyboardInterrupt, signal.SIGINT)):
        if issubclass(lost.exc_type, raised):
            again = threading.Timer(0.1, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
    sys.__unraisablehook__(lost)


class StopRequest:
    """While it is entered, the first SIGINT or SIGTERM is noted; a second one acts as usual.

    Of several processes, all hear of one's request at the same step: SIGTERM is then JAX's own to note, and
    Ctrl-C is passed on to it.
    """

    def __enter__(self) -> "StopRequest":
        self._number: int | None = None
        self._together = jax.process_count() > 1
        numbers = (signal.SIGINT,) if self._together else (signal.SIGINT, signal.SIGTERM)
        self._former = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def after(self, step: int) -> int | None:
        """The signal that asks to stop after this step, on every process the same; None goes on."""
        if not self._together:
            return self._number
        if multihost_utils.reached_preemption_sync_point(step):
            return self._number or signal.SIGTERM
        return None

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._number = number
        StopRequest.__exit__(self)
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)
