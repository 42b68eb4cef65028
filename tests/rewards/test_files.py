"""A judge by mail: requests in OpenAI's batch format, replies paired by their id."""

import json
from pathlib import Path

import pytest

from tests.rewards.local_server import better, comparison, completion, preference
from vla_jax.rewards import JudgeConfig, JudgeError, opened_judge

NUMBERS = range(6)


@pytest.fixture
def config(tmp_path):
    files = {name: str(tmp_path / "mail" / f"{name}.jsonl") for name in ("requests", "replies")}
    return JudgeConfig(kind="file", model="judge-1", **files)


@pytest.fixture
def requests(config, tmp_path):
    """The requests that a first try leaves."""
    with pytest.raises(JudgeError, match=r"replies\.jsonl lacks 6 of 6 replies, 0 of them failed"):
        ask(config, tmp_path)
    return read(config.requests)


def ask(config, tmp_path, numbers=NUMBERS):
    with opened_judge(config, workdir=tmp_path) as judge:
        return [verdict.preferred for verdict in judge([comparison(i) for i in numbers])]


def reply(request, status=200, error=None):
    """A line as the batch interface gives it."""
    response = {
        "status_code": status,
        "request_id": "r",
        "body": json.loads(completion(preference(request["body"]))),
    }
    return {"id": "batch_req_1", "custom_id": request["custom_id"], "response": response, "error": error}


def read(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def write(config, rows):
    with open(config.replies, "w") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def test_requests_are_in_the_batch_format(requests):
    assert len({request["custom_id"] for request in requests}) == len(requests) == 6
    for request in requests:
        assert request.keys() == {"custom_id", "method", "url", "body"}
        assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
        assert len(request["custom_id"]) == 64 and request["body"]["model"] == "judge-1"


def test_replies_in_any_order_are_paired(config, requests, tmp_path):
    write(config, [*map(reply, reversed(requests)), ""])
    assert ask(config, tmp_path) == [better(i) for i in NUMBERS]
    # Comparisons of an earlier round may stand there too.
    assert ask(config, tmp_path, [4, 2]) == [better(4), better(2)]


def test_what_is_missing_or_failed_is_named_and_asked_for_again(config, requests, tmp_path):
    failed = [reply(requests[1], 429), reply(requests[2], error={"code": "expired"})]
    write(config, [reply(requests[0]), *failed, *map(reply, requests[4:])])
    with pytest.raises(JudgeError, match="lacks 3 of 6 replies, 2 of them failed") as caught:
        ask(config, tmp_path)
    message = str(caught.value)
    assert f"{requests[1]['custom_id']}: failed (status 429)" in message and "expired" in message
    again = read(config.requests)
    assert again == requests[1:4]
    with open(config.replies, "a") as file:
        file.writelines(json.dumps(reply(request)) + "\n" for request in again)
    assert ask(config, tmp_path) == [better(i) for i in NUMBERS]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        '{"id": 1}',
        "[]",
        '{"custom_id": "a", "response": {"status_code": 200, "body": {"choices": []}}, "error": null}',
        '{"custom_id": ["a"], "response": {"status_code": 500}}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_reply_is_named(line, config, requests, tmp_path):
    write(config, [*map(reply, requests), line])
    with pytest.raises(ValueError, match=r"replies\.jsonl:7: is no reply in OpenAI's batch format"):
        ask(config, tmp_path)


def test_replies_are_read_in_utf_8_with_or_without_a_mark_at_the_start(config, requests, tmp_path):
    write(config, [*map(reply, requests)])
    content = Path(config.replies).read_text()
    Path(config.replies).write_text(content, encoding="utf-8-sig")
    assert ask(config, tmp_path) == [better(i) for i in NUMBERS]
    Path(config.replies).write_text(content, encoding="utf-16")
    with pytest.raises(ValueError, match=r"replies\.jsonl: is not in UTF-8"):
        ask(config, tmp_path)


def test_requests_do_not_go_over_the_replies(tmp_path):
    (tmp_path / "sub").mkdir()
    one, same = str(tmp_path / "a.jsonl"), str(tmp_path / "sub" / ".." / "a.jsonl")
    with pytest.raises(ValueError, match="are one file"):
        JudgeConfig(kind="file", model="m", requests=one, replies=same)


def test_two_replies_to_one_request_must_agree(config, requests, tmp_path):
    rows = [*map(reply, requests), reply(requests[0])]
    write(config, rows)
    assert ask(config, tmp_path) == [better(i) for i in NUMBERS]
    rows[-1]["response"]["body"] = json.loads(completion("Something else."))
    write(config, rows)
    with pytest.raises(ValueError, match=r"lines 1 and 7 answer .* differently"):
        ask(config, tmp_path)
