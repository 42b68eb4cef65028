"""A judge behind a server that delays, drops, refuses, talks nonsense and dies."""

import base64
import html
import io
import json
import logging
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
import traceback
import urllib.parse
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.rewards.local_server import (
    KEY,
    FastClock,
    answers,
    better,
    comparison,
    completion,
    drip,
    drop,
    drop_within,
    hang,
    serving,
)
from vla_jax.rewards import JudgeConfig, JudgeError, opened_judge
from vla_jax.rewards.annotating import INSTRUCTIONS
from vla_jax.rewards.blind import BlindJudge
from vla_jax.rewards.chat import ChatModel
from vla_jax.rewards.credentials import EnvironmentKey
from vla_jax.rewards.judging import is_swapped
from vla_jax.rewards.server import ServerConfig, ServerJudge
from vla_jax.rewards.spending import Spending
from vla_jax.rewards.verdict_cache import VerdictCache

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def cache(tmp_path):
    kept = VerdictCache(tmp_path / "verdicts.jsonl")
    yield kept
    kept.close()


def judge(url, cache=None, clock=None, spending=None, **fields):
    model = ChatModel("judge-1")
    config = ServerConfig(**{"url": url, "key_variable": "JUDGE_KEY", "timeout": 5.0, **fields})
    server = ServerJudge(config, model, spending or Spending(), clock or FastClock())
    return BlindJudge("server", server, model.identity, 0, cache)


def preferred(verdicts):
    return [verdict.preferred for verdict in verdicts]


def lines(cache):
    return [json.loads(line) for line in cache.path.read_text().splitlines()]


FAULTS = {
    "delays": hang,
    "drips": drip,
    "drops the connection": drop,
    "drops it within the body": drop_within,
    "429 without a date": answers(429, b"{}"),
    "429": answers(429, b'{"error": "slow down"}', Retry_After="3"),
    "500": answers(500, b"oops"),
    "503 as HTML": answers(503, b"<html>down</html>", Content_Type="text/html"),
    "malformed JSON": answers(200, b'{"choices": [{"message": {"content": "Response 1'),
    "JSON without end": answers(200, b"[" * 100_000),
    "HTML": answers(200, b"<html>please log in</html>"),
    "an empty body": answers(200, b""),
    "no choices": answers(200, b'{"choices": []}'),
    "an error with status 200": answers(200, b'{"error": {"message": "overloaded"}}'),
    "bytes that are no text": answers(200, b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_lost_reply_is_asked_for_again_under_the_same_key_and_recorded_once(fault, cache, caplog):
    caplog.set_level(logging.INFO, "vla_jax.rewards.server")
    patience = {"timeout": 0.2} if fault in (hang, drip) else {}
    with serving(fault) as place:
        verdicts = judge(place.url, cache, **patience)([comparison(3)])
    assert preferred(verdicts) == [better(3)]
    # On a busy machine the second reply may be late too.
    ((key, asked),) = place.asked.items()
    assert asked == 2 or (patience and asked > 2)
    (line,) = lines(cache)
    assert line["key"] == key
    assert fault is not drip or "no whole reply within 0.2 s" in caplog.text
    assert "try 1 of 7" in caplog.text and KEY not in caplog.text


def test_a_campaign_through_all_faults_records_every_verdict_once_and_is_never_asked_again(cache):
    numbers = range(24)
    faults = [fault for fault in FAULTS.values() if fault not in (hang, drip)]
    script = [fault for fault in faults for _ in range(3)]
    random.Random(0).shuffle(script)
    with serving(*script) as place:
        verdicts = judge(place.url, cache, concurrency=4, retries=40)([comparison(i) for i in numbers])
        assert preferred(verdicts) == [better(i) for i in numbers]
        assert len(place.requests) == len(numbers) + len(script)
        assert Counter(line["key"] for line in lines(cache)) == Counter(place.asked.keys())
        again = judge(place.url, cache)([comparison(i) for i in reversed(numbers)])
        assert preferred(again) == [better(i) for i in reversed(numbers)]
        assert len(place.requests) == len(numbers) + len(script)


def test_a_server_that_dies_in_between_ends_the_run_which_goes_on_with_the_rest(tmp_path):
    numbers = range(12)
    file = tmp_path / "verdicts.jsonl"
    first = VerdictCache(file)
    with serving(*[answers(200)] * 5) as place:

        def die(handler):
            place.closing.set()
            drop(handler)

        place.script.extend([die] + [drop] * 100)
        with pytest.raises(JudgeError, match="did not answer in 3 tries.*kept; start again"):
            judge(place.url, first, concurrency=2, retries=2)([comparison(i) for i in numbers])
        asked = set(place.asked)
    first.close()
    known = {json.loads(line)["key"] for line in file.read_text().splitlines()}
    assert len(known) == 5

    second = VerdictCache(file)
    with serving() as place:  # at another port
        verdicts = judge(place.url, second)([comparison(i) for i in numbers])
    second.close()
    assert preferred(verdicts) == [better(i) for i in numbers]
    assert len(place.requests) == len(numbers) - 5 and not known & set(place.asked)
    # What was on its way is asked for under the key that it had.
    assert asked - known and asked - known <= set(place.asked)
    keys = [json.loads(line)["key"] for line in file.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == len(numbers)


CAMPAIGN = """
import sys
from pathlib import Path
from tests.rewards.local_server import comparison
from vla_jax.rewards import JudgeConfig, opened_judge
assert "jax" not in sys.modules
config = JudgeConfig(kind="server", url=sys.argv[1], model="judge-1", key_variable="JUDGE_KEY", concurrency=1)
with opened_judge(config, workdir=Path(sys.argv[2])) as judge:
    print([verdict.preferred for verdict in judge([comparison(i) for i in range(8)])])
"""


def test_a_run_that_is_killed_goes_on_from_its_cache(tmp_path):
    def start(url):
        return subprocess.Popen(
            [sys.executable, "-c", CAMPAIGN, url, str(tmp_path)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    file = tmp_path / "verdicts.jsonl"

    def kill(handler):
        # The next request may be on its way before the last reply is written down.
        ends = time.monotonic() + 30
        while file.read_bytes().count(b"\n") < 3 and time.monotonic() < ends:
            time.sleep(0.01)
        process.kill()

    with serving(*[answers(200)] * 3) as place:
        # Killed while the fourth request is on its way, and, as it were, while its line is being written.
        place.script.append(kill)
        process = start(place.url)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGKILL, said
    whole = file.read_bytes()
    assert whole.count(b"\n") == 3
    lost = set(place.asked) - {json.loads(line)["key"] for line in whole.splitlines()}
    file.write_bytes(whole + b'{"key": "torn')
    with serving() as place:
        process = start(place.url)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.splitlines()[-1] == str([better(i) for i in range(8)])
    assert len(place.requests) == 5 and len(lost) == 1 and lost < set(place.asked)
    assert file.read_bytes().startswith(whole) and file.read_bytes().count(b"\n") == 8
    assert KEY not in said and KEY.encode() not in file.read_bytes()


def test_a_request_holds_the_prompt_the_image_and_the_key():
    asked = comparison(0)
    with serving() as place:
        judge(place.url)([asked])
    path, headers, body = place.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge-1", 256, 0.0)
    image, text = body["messages"][0]["content"]
    prefix, _, encoded = image["image_url"]["url"].partition(",")
    assert prefix == "data:image/png;base64"
    pixels = Image.open(io.BytesIO(base64.b64decode(encoded)))
    np.testing.assert_array_equal(np.asarray(pixels), asked.image)
    pair = (asked.second, asked.first) if is_swapped(asked, 0) else (asked.first, asked.second)
    labelled = f"Question: {asked.question}\n\nResponse 1: {pair[0]}\n\nResponse 2: {pair[1]}"
    assert text["text"] == f"{INSTRUCTIONS}\n\n{labelled}"


# --- the key -----------------------------------------------------------------------------------------

ECHOES = {
    "unauthorised": answers(401, f"Incorrect API key provided: {KEY}".encode()),
    "refused": answers(400, f'{{"error": "bad header Bearer {KEY}"}}'.encode()),
    "failing": answers(500, f"Bearer {KEY}".encode()),
    "nonsense": answers(200, f'{{"error": "{KEY}"}}'.encode()),
    "a reply": answers(200, completion(f"Response 1 is better. Your key is {KEY}")),
    "an escaped reply": answers(
        200, completion("Response 1 is better. KEY").replace(b"KEY", KEY.replace("s", "\\u0073").encode())
    ),
}


@pytest.mark.parametrize("act", ECHOES.values(), ids=ECHOES)
def test_the_key_is_in_no_log_error_cache_or_verdict(act, cache, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    said = ""
    with serving(*[act] * 3) as place:
        asking = judge(place.url, cache, retries=2)
        try:
            said += repr(asking([comparison(0)]))
        except JudgeError as error:
            said += "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    server = asking.judge
    said += repr(asking) + repr(asdict(server._config)) + repr(vars(server)) + repr(vars(server._key))
    said += repr(pickle.dumps(server._key))
    assert place.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    output = "".join(capfd.readouterr())
    for text in (said, caplog.text, cache.path.read_text(), output):
        assert KEY not in text
    assert "[key]" in said + caplog.text


def test_the_key_is_not_in_what_other_libraries_log_either(caplog):
    def malformed(handler):
        handler.wfile.write(f"HTTP/1.1 200 OK\r\nYou sent Bearer {KEY}\r\nX: y\r\n\r\n".encode())
        handler.close_connection = True

    caplog.set_level(logging.DEBUG)
    with serving(malformed) as place:
        judge(place.url)([comparison(0)])
    assert "You sent Bearer [key]" in caplog.text and KEY not in caplog.text


@pytest.mark.parametrize("text", ["\\", "%25", "&amp;", "\\u0073"])
def test_text_made_to_look_like_a_key_is_searched_in_one_pass(text):
    # From every backslash on, and not from the first alone, this would take minutes.
    assert EnvironmentKey("JUDGE_KEY").hidden(text * 100_000) == text * 100_000


ESCAPABLE = r"sk-ab/CD+ef\1&<2>=="
# As JSON, JSON in JSON, PHP's and Gson's JSON, a query string, HTML and XML have it.
SPELLINGS = {
    "JSON": json.dumps,
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "with escaped slashes": lambda key: json.dumps(key).replace("/", "\\/"),
    "for HTML": lambda key: json.dumps(key).replace("=", "\\u003d").replace("&", "\\u0026"),
    "in capitals": lambda key: "".join(rf"\u{ord(character):04X}" for character in key),
    "a query": lambda key: urllib.parse.quote(key, safe=""),
    "a query in a query": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "HTML": html.escape,
    "numbers": lambda key: key.replace("&", "&#38;").replace("=", "&#x3D;"),
}


@pytest.mark.parametrize("status", [400, 401, 500, 200])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_key_that_a_server_escapes_is_hidden_too(spelling, status, monkeypatch, caplog):
    monkeypatch.setenv("JUDGE_KEY", ESCAPABLE)
    quoted = f"begin {spelling(ESCAPABLE)} end"
    with serving(*[answers(status, quoted.encode())] * 2) as place:
        with pytest.raises(JudgeError) as caught:
            judge(place.url, retries=1)([comparison(0)])
        assert place.requests[0][1]["Authorization"] == f"Bearer {ESCAPABLE}"
    for text in (str(caught.value), *(record.getMessage() for record in caplog.records)):
        assert re.search(r'begin [\\"]*\[key\][\\"]* end', text)


def test_a_key_that_is_set_by_mistake_is_not_quoted(monkeypatch):
    with pytest.raises(ValueError, match="must name an environment variable") as caught:
        JudgeConfig(kind="server", url="http://localhost/v1", model="m", key_variable=KEY)
    assert KEY not in str(caught.value)
    monkeypatch.delenv("AKIAIOSFODNN7EXAMPLE", raising=False)
    with pytest.raises(ValueError, match="names holds no key") as caught:
        judge("http://localhost/v1", key_variable="AKIAIOSFODNN7EXAMPLE")
    assert "AKIA" not in str(caught.value)
    for url in (f"http://me:{KEY}@localhost/v1", f"http://localhost/v1?key={KEY}"):
        with pytest.raises(ValueError, match="must hold no user, password or query") as caught:
            ServerConfig(url)
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "two words " + KEY, f"{KEY}\nX: y", f"ключ{KEY}"])
def test_a_variable_without_a_key_is_refused_and_its_value_not_quoted(value, monkeypatch):
    if value is None:
        monkeypatch.delenv("JUDGE_KEY")
    else:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(ValueError, match=r"rewards\.judge\.key_variable names holds no key") as caught:
        judge("http://localhost/v1")
    assert KEY not in str(caught.value)


def test_without_a_variable_no_key_is_sent_not_even_that_of_netrc(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {KEY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving() as place:
        judge(place.url, key_variable="")([comparison(0)])
    assert "Authorization" not in place.requests[0][1]


def test_the_key_follows_no_redirection():
    with serving() as other, serving() as place:
        place.script.append(answers(307, b"", Location=f"{other.url}/chat/completions"))
        with pytest.raises(JudgeError, match=r"answers 307.*rewards\.judge\.url"):
            judge(place.url)([comparison(0)])
    assert not other.requests and len(place.requests) == 1


# --- how often and how long ----------------------------------------------------------------------------


def test_requests_start_as_often_as_was_agreed():
    clock = FastClock()
    starts = []

    class Counted(Spending):
        def request(self):
            starts.append(clock.now())
            super().request()

    with serving(answers(500, b"")) as place:
        asking = judge(place.url, clock=clock, spending=Counted(), requests_per_minute=30, concurrency=1)
        asking([comparison(i) for i in range(5)])
    # The second is a retry, whose own wait is shorter than the gap.
    np.testing.assert_allclose(np.diff(starts), 2.0)
    assert len(starts) == 6


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("Mon, 12 Jan 1970 13:47:10 GMT", 30)])
def test_a_server_that_asks_for_time_is_given_it(header, seconds):
    clock = FastClock()
    with serving(answers(429, b"{}", Retry_After=header)) as place:
        judge(place.url, clock=clock)([comparison(0)])
    assert sum(clock.waits) == pytest.approx(seconds)


@pytest.mark.parametrize("header", ["soon", "0", "0.1", "-5", "nan", "Mon, 12 Jan 1970 13:00:00 GMT"])
def test_a_server_that_asks_for_no_time_is_given_some(header):
    clock = FastClock()
    with serving(*[answers(503, b"", Retry_After=header)] * 3) as place:
        judge(place.url, clock=clock)([comparison(0)])
    assert 3.5 <= sum(clock.waits) <= 7.0


def test_a_server_that_asks_for_too_much_time_ends_the_run():
    message = r"come back in 7200 s.*rewards\.judge\.longest_wait \(120 s\)"
    act = answers(429, b"{}", Retry_After="7200")
    with serving(act) as place, pytest.raises(JudgeError, match=message):
        judge(place.url)([comparison(0)])
    assert len(place.requests) == 1


def test_waits_double_up_to_a_minute_and_are_drawn():
    clock = FastClock()
    with serving(*[answers(500, b"")] * 9) as place:
        judge(place.url, clock=clock, retries=9)([comparison(0)])
    longest = np.minimum(2.0 ** np.arange(9), 60)
    assert len(clock.waits) == 9
    assert (np.array(clock.waits) <= longest).all() and (np.array(clock.waits) >= longest / 2).all()
    assert len({round(wait / most, 6) for wait, most in zip(clock.waits, longest, strict=True)}) > 5


def test_a_server_that_never_answers_is_given_up():
    message = "did not answer in 3 tries; the last: 502 bad gateway"
    with serving(*[answers(502, b"bad gateway")] * 3) as place, pytest.raises(JudgeError, match=message):
        judge(place.url, retries=2)([comparison(0)])
    assert len(place.requests) == 3


# --- refusals and costs ----------------------------------------------------------------------------------


def test_a_refused_comparison_ends_the_run_or_is_counted(cache):
    refusal = answers(400, b"content policy")
    with serving(refusal) as place:
        with pytest.raises(JudgeError, match=r"refuses a comparison: 400 content policy.*on_refusal='count'"):
            judge(place.url, cache, concurrency=1)([comparison(0)])
        assert len(cache) == 0
        place.script.append(refusal)
        counting = judge(place.url, cache, concurrency=1, on_refusal="count")
        verdicts = counting([comparison(0), comparison(1)])
        assert preferred(verdicts) == [None, better(1)]
        assert verdicts[0].problem == "the server refused the comparison" and not verdicts[0].tie
        assert preferred(counting([comparison(0)])) == [None]
    assert len(place.requests) == 3


def test_a_wrong_address_stops_at_once():
    message = "answers 404 no such model"
    with serving(answers(404, b"no such model")) as place, pytest.raises(JudgeError, match=message):
        judge(place.url)([comparison(0)])
    assert len(place.requests) == 1


def test_what_was_paid_for_is_kept_when_another_request_ends_the_run(cache):
    def late(handler):
        place.closing.wait(0.2)
        answers(200)(handler)

    with serving(late, answers(401, b"")) as place, pytest.raises(JudgeError, match="answers 401"):
        judge(place.url, cache, concurrency=2)([comparison(i) for i in range(6)])
    assert len(cache) == len(place.requests) - 1 > 0


def test_what_was_paid_for_is_kept_when_the_wait_is_interrupted(cache):
    def interrupting(handler):
        if len(place.requests) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        place.closing.wait(0.3)
        answers(200)(handler)

    with serving(interrupting, interrupting) as place, pytest.raises(KeyboardInterrupt):
        judge(place.url, cache, concurrency=2)([comparison(i) for i in range(6)])
    assert len(cache) == len(place.requests) == 2


def test_no_connection_serves_twice_so_that_no_late_reply_answers_another_request():
    with serving() as place:
        judge(place.url, concurrency=1)([comparison(0), comparison(1)])
    assert [headers["Connection"] for _, headers, _ in place.requests] == ["close", "close"]


def test_a_reply_in_parts_is_read(cache):
    parts = [
        {"type": "reasoning"},
        {"type": "text", "text": "Response 1 "},
        {"type": "text", "text": "is better"},
    ]
    body = json.dumps({"choices": [{"message": {"content": parts}}]}).encode()
    with serving(answers(200, body)) as place:
        (verdict,) = judge(place.url, cache)([comparison(0)])
    assert verdict.reply == "Response 1 is better" and not verdict.problem


@pytest.mark.parametrize(
    ("said", "counted"), [(True, 0), (-5, 0), (5.0, 5), (5.5, 0), (1e999, 0), ("5", 0), (None, 0)]
)
def test_tokens_that_are_no_count_count_nothing(said, counted, tmp_path):
    body = {"choices": [{"message": {"content": "1"}}], "usage": {"prompt_tokens": said}}
    with serving(answers(200, json.dumps(body).encode())) as place:
        kept = VerdictCache(tmp_path / "verdicts.jsonl")
        judge(place.url, kept)([comparison(0)])
        kept.close()
    assert VerdictCache(tmp_path / "verdicts.jsonl").tokens() == (counted, 0)


def test_costs_are_counted_limited_and_go_on_counting_after_a_restart(tmp_path):
    fields = dict(input_price=1000.0, output_price=5000.0, max_cost=0.5, concurrency=1)
    with serving() as place:
        config = JudgeConfig(kind="server", url=place.url, model="m", key_variable="JUDGE_KEY", **fields)
        with opened_judge(config, workdir=tmp_path) as asking:
            asking([comparison(0), comparison(1)])
            assert asking.spent == pytest.approx(
                {
                    "judge_requests": 2,
                    "judge_input_tokens": 200,
                    "judge_output_tokens": 40,
                    "judge_cost": 0.4,
                }
            )
        with opened_judge(config, workdir=tmp_path) as asking:
            assert asking.spent["judge_cost"] == pytest.approx(0.4)
            with pytest.raises(JudgeError, match=r"cost 0\.60, of 0\.50 that it may"):
                asking([comparison(i) for i in range(5)])
        assert len(place.requests) == 3
        assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 3


def test_a_comparison_that_stands_twice_is_asked_once_and_equal_responses_never():
    one = comparison(1)
    same = type(one)(one.image, one.question, "A cat.", "A cat.")
    exchanged = type(one)(one.image, one.question, one.second, one.first)
    with serving() as place:
        verdicts = judge(place.url)([one, same, one, exchanged])
    assert preferred(verdicts) == [better(1), None, better(1), 1 - better(1)]
    assert verdicts[1].tie and len(place.requests) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "localhost:8000"}, r"rewards\.judge\.url must begin with http"),
        ({"url": "http://[::1"}, r"rewards\.judge\.url must begin with http.*and name a host"),
        ({"url": "http://localhost:99999/v1"}, r"rewards\.judge\.url .*no port or one that there is"),
        ({"url": "http://localhost:8o/v1"}, r"rewards\.judge\.url .*no port or one that there is"),
        ({"url": "http://localhost/v1/chat/completions/"}, r"rewards\.judge\.url ends in /chat/completions"),
        ({"url": "http://localhost/v1 "}, r"rewards\.judge\.url .*hold no blank"),
        ({"timeout": 0}, r"rewards\.judge\.timeout is 0; it must be above 0"),
        ({"timeout": float("inf")}, r"rewards\.judge\.timeout is inf; it must be .*at most 86,400"),
        ({"retries": -1}, r"rewards\.judge\.retries is -1"),
        ({"concurrency": 0}, r"rewards\.judge\.concurrency is 0; it must be at least 1"),
        ({"on_refusal": "skip"}, r"on_refusal is 'skip'; choose 'error' or 'count'"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ServerConfig(**{"url": "http://localhost/v1", **fields})
