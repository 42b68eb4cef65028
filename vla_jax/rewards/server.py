"""A judge behind an OpenAI-compatible server.

Every comparison is a request of its own, several at a time. Whatever loses a reply (no connection, no answer
in time, 408, 409, 425, 429, 5xx, a body that is no completion) is tried again under the same idempotency key.
What the server refuses (400, 413, 415, 422) is counted or stops the run, as configured; everything else (the
key, the address) stops it. A reply that was lost on its way may be billed twice.
"""

import json
import logging
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3

from vla_jax.rewards.blind import Readings
from vla_jax.rewards.chat import ChatModel, reading_of
from vla_jax.rewards.credentials import EnvironmentKey, check_variable
from vla_jax.rewards.judging import JudgeError, Shown
from vla_jax.rewards.pacing import Clock, Pace, backoff, retry_after
from vla_jax.rewards.reading import Reading
from vla_jax.rewards.spending import Spending

# Of its own, whatever the verbosity of others: a run that waits for a server says so.
_LOGGER = logging.getLogger(__name__)
_LOGGER.setLevel(logging.WARNING)
_LOST = {408, 409, 425, 429}
_REFUSED = {400, 413, 415, 422}
# Seconds; sockets take no more than some years, and no run a day.
_LONGEST = 86_400
# No verdict is longer; a server that goes on and on is not to fill the memory.
_MAX_BYTES = 4_000_000
_QUOTED = 300


@dataclass(frozen=True)
class ServerConfig:
    """Where a server is and how it is asked.

    Attributes:
      url: up to and without `/chat/completions`; "http://localhost:8000/v1".
      key_variable: the environment variable with its key; "" sends none.
      timeout: seconds that a reply may take from its first line on, and any silence before or within it.
      retries: tries after the first.
      longest_wait: the most seconds that the server may ask to wait.
      requests_per_minute: how often it is asked at most, retries counted; 0 sets no limit.
      concurrency: requests on their way at a time.
      on_refusal: "error", or "count": a refused comparison has no verdict.
    """

    url: str
    key_variable: str = ""
    timeout: float = 60.0
    retries: int = 6
    longest_wait: float = 120.0
    requests_per_minute: float = 0.0
    concurrency: int = 8
    on_refusal: str = "error"

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            reached = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of the brackets or the port; quotes what may be a key
            reached = False
        if not reached or re.search(r"\s", self.url):
            raise ValueError(
                "rewards.judge.url must begin with http:// or https:// and name a host, with no port or one "
                "that there is, and hold no blank"
            )
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "rewards.judge.url must hold no user, password or query, which would be logged; name the "
                "environment variable of the key in rewards.judge.key_variable"
            )
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError(
                "rewards.judge.url ends in /chat/completions, which is added to it; leave that out"
            )
        check_variable(self.key_variable)
        if self.on_refusal not in ("error", "count"):
            raise ValueError(f"rewards.judge.on_refusal is {self.on_refusal!r}; choose 'error' or 'count'")
        for name in ("timeout", "longest_wait"):
            if not 0 < getattr(self, name) <= _LONGEST:
                raise ValueError(
                    f"rewards.judge.{name} is {getattr(self, name)}; it must be above 0 and at most "
                    f"{_LONGEST:,}"
                )
        for name, least in (("retries", 0), ("requests_per_minute", 0), ("concurrency", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"rewards.judge.{name} is {getattr(self, name)}; it must be at least {least}"
                )


class _Lost(NamedTuple):
    """A try without a reply: why, and the seconds that the server asks to wait."""

    problem: str
    wait: float = 0.0


class ServerJudge:
    """Asks a server; see `BlindJudge.judge`.

    Args:
      config: the server.
      model: whom to ask there.
      spending: counts.
      clock: tells the time.
    """

    def __init__(
        self, config: ServerConfig, model: ChatModel, spending: Spending, clock: Clock | None = None
    ):
        self._config, self._model, self._spending = config, model, spending
        self._clock = clock or Clock()
        self._pace = Pace(config.requests_per_minute, self._clock)
        self._key = EnvironmentKey(config.key_variable)
        self._url = f"{config.url.rstrip('/')}/chat/completions"
        self._dice = random.Random()

    def __call__(self, asked: Sequence[Shown]) -> Readings:
        """Readings as they arrive.

        Where one cannot be had, or the wait is interrupted, no more is asked; those on their way are waited
        for and given first, for they are paid for. Whoever interrupts that wait too has none of them.

        Raises:
          JudgeError: where one cannot be had.
        """
        stopping = threading.Event()
        failure: JudgeError | KeyboardInterrupt | None = None
        with (
            self._key.kept_out_of("urllib3.connection", "urllib3.connectionpool"),
            ThreadPoolExecutor(self._config.concurrency, "judge") as threads,
        ):
            try:
                places = {threads.submit(self._answer, one, stopping): i for i, one in enumerate(asked)}
                pending = set(places)
                while pending:
                    try:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    except KeyboardInterrupt as interruption:
                        if isinstance(failure, KeyboardInterrupt):
                            raise
                        failure = interruption
                        stopping.set()
                        continue
                    for future in done:
                        try:
                            reading = future.result()
                        except JudgeError as error:
                            failure = failure or error
                            stopping.set()
                            continue
                        if reading is not None:
                            yield places[future], reading
            finally:
                stopping.set()
        if failure is not None:
            raise failure

    def _answer(self, asked: Shown, stopping: threading.Event) -> Reading | None:
        """One comparison, tried until it is answered; None where all is to stop."""
        body, lost = self._model.body(asked), _Lost("")
        for tries in range(1, self._config.retries + 2):
            self._pace.wait(stopping)
            if stopping.is_set():
                return None
            self._spending.request()
            outcome = self._try(body, asked.key)
            if isinstance(outcome, Reading):
                self._spending.reply(outcome.tokens)
                return outcome
            lost = outcome
            if tries <= self._config.retries:
                level = logging.INFO if tries == 1 else logging.WARNING  # one lost reply is nothing unusual
                _LOGGER.log(level, "judge: %s; try %d of %d", lost.problem, tries, self._config.retries + 1)
                self._pace.hold(lost.wait)
                self._clock.wait(backoff(tries, self._dice), stopping)
        raise JudgeError(
            f"{self._url} did not answer in {self._config.retries + 1} tries; the last: {lost.problem}. "
            "What was answered is kept; start again when the server is back"
        )

    def _try(self, body: dict[str, Any], key: str) -> Reading | _Lost:
        try:
            response, content = self._post(body, key)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return _Lost(self._key.hidden(f"{type(error).__name__}: {error}")[:_QUOTED])
        said = f"{response.status_code} {self._key.hidden(content.decode(errors='replace'))[:_QUOTED]}"
        if response.status_code in _LOST or response.status_code >= 500:
            wait = retry_after(response.headers.get("Retry-After"), self._clock, self._config.longest_wait)
            return _Lost(said, wait)
        if response.status_code in _REFUSED and self._config.on_refusal == "count":
            return Reading(None, said, "the server refused the comparison")
        if response.status_code in _REFUSED:
            raise JudgeError(
                f"{self._url} refuses a comparison: {said}; correct rewards.judge.*, or set "
                "rewards.judge.on_refusal='count' if it is this comparison's fault"
            )
        if response.status_code != 200:
            raise JudgeError(
                f"{self._url} answers {said}; see to rewards.judge.url, .model and .key_variable"
            )
        try:
            reading = reading_of(json.loads(content))
        except (ValueError, RecursionError) as error:
            return _Lost(self._key.hidden(f"a reply that is no completion ({error}): {said}")[:_QUOTED])
        return reading._replace(reply=self._key.hidden(reading.reply))

    def _post(self, body: dict[str, Any], key: str) -> tuple[requests.Response, bytes]:
        """The response, and its content, read against the clock: requests' timeout is one between two bytes.

        No connection serves twice: what a server sends too late or once too often answers nothing else.

        Raises:
          requests.RequestException, urllib3.exceptions.HTTPError, OSError: where it does not come whole and
            in time.
        """
        ends = time.monotonic() + self._config.timeout
        with requests.post(
            self._url,
            json=body,
            headers={"Idempotency-Key": key, "Connection": "close"},
            auth=self._key,
            timeout=self._config.timeout,
            stream=True,
            allow_redirects=False,  # elsewhere the key is not for
        ) as response:
            content = b""
            while part := response.raw.read1(65536, decode_content=True):
                content += part
                if time.monotonic() > ends:
                    raise requests.Timeout(f"no whole reply within {self._config.timeout:g} s")
                if len(content) > _MAX_BYTES:
                    raise requests.RequestException(f"a reply of more than {_MAX_BYTES:,} bytes")
            return response, content
