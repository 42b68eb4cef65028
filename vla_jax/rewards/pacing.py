"""When to ask a server: as often as it was agreed, not while it asks for quiet, later after every failure."""

import random
import threading
import time
from email.utils import parsedate_to_datetime

from vla_jax.rewards.judging import JudgeError

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0


class Clock:
    """Time, in seconds. Tests have one of their own."""

    def now(self) -> float:
        """Since some moment."""
        return time.monotonic()

    def wait(self, seconds: float, stopping: threading.Event) -> None:
        """Returns after some seconds, or as soon as all is to stop."""
        stopping.wait(seconds)

    def date(self) -> float:
        """Since 1970."""
        return time.time()


class Pace:
    """The moments at which requests may start, for all threads together.

    Args:
      requests_per_minute: spread evenly; 0 sets no limit.
      clock: tells the time.
    """

    def __init__(self, requests_per_minute: float, clock: Clock):
        self._gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._clock = clock
        self._next = clock.now()
        self._lock = threading.Lock()

    def wait(self, stopping: threading.Event) -> None:
        """Returns when it is this request's turn, or all is to stop."""
        while not stopping.is_set():
            with self._lock:
                wait = self._next - self._clock.now()
                if wait <= 0:
                    self._next = max(self._next, self._clock.now()) + self._gap
                    return
            self._clock.wait(wait, stopping)

    def hold(self, seconds: float) -> None:
        """Lets no request start for some seconds: the server asked for that."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)


def backoff(failures: int, dice: random.Random) -> float:
    """Seconds to wait after so many failures (from 1 on): doubled each time, of which half is drawn.

    Without the draw, threads that failed together would ask together for ever.
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 16))
    return longest * dice.uniform(0.5, 1.0)


def retry_after(header: str | None, clock: Clock, limit: float) -> float:
    """Seconds that a server asks to wait: its `Retry-After`, in seconds or as a date; 0 where it does not.

    Args:
      header: the header's value.
      clock: tells the date.
      limit: the longest wait, in seconds.

    Raises:
      JudgeError: where it asks for longer.
    """
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - clock.date()
        except ValueError:
            return 0.0
    if not seconds >= 0:
        return 0.0
    if seconds > limit:
        raise JudgeError(
            f"the server asks to come back in {seconds:.0f} s; start again then, or raise "
            f"rewards.judge.longest_wait ({limit:.0f} s)"
        )
    return seconds
