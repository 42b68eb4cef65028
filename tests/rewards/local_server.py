"""A chat-completion server on this machine that misbehaves as it is told, and comparisons to ask it about."""

import json
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from vla_jax.rewards.judging import Comparison
from vla_jax.rewards.pacing import Clock

KEY = "sk-secret-7f3a91"


def comparison(number: int) -> Comparison:
    """A small image, and two responses of which the longer one is better: the first of every other pair."""
    image = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    pair = (f"A cat {number}.", f"A cat {number} on a red mat.")
    return Comparison(image, "What is there?", *(pair if number % 2 else pair[::-1]))


def better(number: int) -> int:
    """Which of `comparison(number)`'s responses is."""
    return number % 2


def completion(reply: str) -> bytes:
    """A body with a reply, billed with 100 tokens in and 20 out."""
    message = {"role": "assistant", "content": reply}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"choices": [{"message": message}], "usage": usage}).encode()


def preference(body: dict[str, Any]) -> str:
    """A judge's words: the longer response is better."""
    text = body["messages"][0]["content"][1]["text"]
    found = re.search(r"Response 1: (.*)\n\nResponse 2: (.*)$", text)
    assert found
    return f"Response {1 if len(found[1]) > len(found[2]) else 2} is better: it says more."


Act = Callable[["Handler"], None]


def answers(status: int, body: bytes | None = None, **headers: str) -> Act:
    """Answers so; without a body, as a judge does."""

    def act(handler: "Handler") -> None:
        content = completion(preference(handler.body)) if body is None else body
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return act


def hang(handler: "Handler") -> None:
    """Says nothing until the server closes."""
    handler.place.closing.wait(10)


def drop(handler: "Handler") -> None:
    """Closes the connection."""
    handler.close_connection = True


def drop_within(handler: "Handler") -> None:
    """Closes the connection within the body."""
    content = completion(preference(handler.body))
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.close_connection = True


def drip(handler: "Handler") -> None:
    """A byte now and then, never silent for long, for ten seconds."""
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    while not handler.place.closing.wait(0.02):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return


class Handler(BaseHTTPRequestHandler):
    """Reads a request and does what comes next in the script."""

    protocol_version = "HTTP/1.1"
    place: "Place"
    body: dict[str, Any]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.body = json.loads(content)
        with self.place.lock:
            self.place.requests.append((self.path, dict(self.headers), self.body))
            self.place.asked[self.headers["Idempotency-Key"]] += 1
            act = self.place.script.popleft() if self.place.script else answers(200)
        act(self)

    def log_message(self, *_: object) -> None:
        pass


class Place:
    """A server that runs.

    Attributes:
      url: where.
      script: what to do with the requests to come; afterwards it answers.
      requests: path, headers and body of those that came.
      asked: how often each idempotency key came.
    """

    def __init__(self, script: Iterable[Act]):
        self.script = deque(script)
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"place": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """No connection is accepted any more."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(*script: Act) -> Iterator[Place]:
    """A server for as long as it is needed."""
    place = Place(script)
    try:
        yield place
    finally:
        if not place.closing.is_set():
            place.close()


class FastClock(Clock):
    """Waiting takes no time, and is noted."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, stopping: threading.Event) -> None:
        with self._lock:
            self.waits.append(seconds)
            self.time += seconds

    def date(self) -> float:
        return 1_000_000.0 + self.time
