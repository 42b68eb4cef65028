"""A judge by mail: a file of requests goes out, a file of replies comes back.

Both are JSON lines in OpenAI's batch format, which its batch interface and vLLM's `run-batch` take and give:
`{"custom_id", "method", "url", "body"}` and `{"custom_id", "response": {"status_code", "body"}, "error"}`.
They are paired by `custom_id`, the key of what was asked.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_jax.rewards.blind import Readings
from vla_jax.rewards.chat import ChatModel, reading_of
from vla_jax.rewards.judging import JudgeError, Shown
from vla_jax.rewards.reading import Reading

_NAMED = 3


@dataclass(frozen=True)
class FileJudge:
    """Reads replies from a file, and writes what it has none for into another; see `BlindJudge.judge`.

    Attributes:
      requests: the file of requests, written anew whenever replies are missing.
      replies: the file of replies; it need not be there at first.
      model: whom the requests are for.
    """

    requests: Path
    replies: Path
    model: ChatModel

    def __call__(self, asked: Sequence[Shown]) -> Readings:
        """All readings.

        Raises:
          JudgeError: where a reply is missing or says that its request failed; its request is then written.
          ValueError: where a line of the replies cannot be read, or two of them differ; names the lines.
        """
        replies = read_replies(self.replies)
        missing = [one for one in asked if not isinstance(replies.get(one.key), Reading)]
        if missing:
            write_requests(self.requests, missing, self.model)
            failed = [f"{one.key}: {replies[one.key]}" for one in missing if one.key in replies]
            named = [*failed, *(one.key for one in missing if one.key not in replies)][:_NAMED]
            raise JudgeError(
                f"{self.replies} lacks {len(missing)} of {len(asked)} replies, {len(failed)} of them failed "
                f"({'; '.join(named)}{'; ...' if len(missing) > _NAMED else ''}); have {self.requests} "
                "answered, add what comes back to the replies, and start again"
            )
        for place, one in enumerate(asked):
            reading = replies[one.key]
            assert isinstance(reading, Reading)
            yield place, reading


def write_requests(file: Path, asked: Sequence[Shown], model: ChatModel) -> None:
    """Writes one request a line; the file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with partial.open("w") as lines:
        for one in asked:
            row = {
                "custom_id": one.key,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": model.body(one),
            }
            lines.write(json.dumps(row) + "\n")
    os.replace(partial, file)


def read_replies(file: Path) -> dict[str, Reading | str]:
    """By `custom_id`, what each reply says, or why its request failed; none where there is no file.

    A request that failed and was answered later is answered.

    Raises:
      ValueError: where a line cannot be read, or two answers to one request differ; names the lines.
    """
    replies: dict[str, Reading | str] = {}
    line_of: dict[str, int] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n") if file.is_file() else []
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not in UTF-8 ({error}); save it so") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key = row["custom_id"]
            if not isinstance(key, str):
                raise ValueError("custom_id is not text")
            reply = _reply(row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{file}:{number}: is no reply in OpenAI's batch format ({error}); correct or remove the line"
            ) from None
        earlier = replies.get(key)
        if isinstance(earlier, Reading):
            if isinstance(reply, Reading) and reply != earlier:
                raise ValueError(
                    f"{file}: lines {line_of[key]} and {number} answer {key} differently; remove one of them"
                )
            continue
        replies[key], line_of[key] = reply, number
    return replies


def _reply(row: Mapping[str, Any]) -> Reading | str:
    response = row.get("response") or {}
    if row.get("error"):
        return f"failed ({row['error']})"
    if response.get("status_code") != 200:
        return f"failed (status {response.get('status_code')})"
    return reading_of(response["body"])
