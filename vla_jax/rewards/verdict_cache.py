"""What a judge has said, kept on disk line by line: nothing that was answered is asked twice.

One JSON object a line, under the key of what was asked. A line counts once its newline is on the disk: what a
kill left of a line is cut off when the file is opened again.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_jax.rewards.judging import JudgeError, Shown
from vla_jax.rewards.reading import Reading


class VerdictCache:
    """Readings by key, in a file that one process at a time may write.

    Args:
      path: the file; begun, with its folder, where there is none.

    Raises:
      ValueError: where a whole line cannot be read, or a key stands twice; names file and line.
      JudgeError: where another process has it open.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = path.exists()
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise JudgeError(
                f"{path} is being written by another process; wait for it, or choose another file"
            ) from None
        if not begun:
            _sync_folder(path.parent)
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        self._rows: dict[str, Mapping[str, Any]] = {}
        for number, line in enumerate(content[:whole].splitlines(), 1):
            self._read(line, f"{path}:{number}")

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Reading | None:
        """What was read under a key; None where it has not been asked."""
        row = self._rows.get(key)
        if row is None:
            return None
        return Reading(row["better"], row["reply"], row["problem"], row["tokens"])

    def record(self, asked: Shown, reading: Reading) -> None:
        """Keeps a reading; it is on the disk when this returns.

        Raises:
          ValueError: where its key has one already.
          OSError: where it cannot be written; the file is as it was.
        """
        if asked.key in self._rows:
            raise ValueError(f"{self.path}: {asked.key} has a verdict already")
        row = {
            "key": asked.key,
            "question": asked.question,
            "responses": list(asked.responses),
            **reading._asdict(),
        }
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._write(json.dumps(row).encode() + b"\n")
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(end)
            raise
        self._rows[asked.key] = row

    def tokens(self) -> tuple[int, int]:
        """Tokens (in, out) of all replies in the file, those of earlier runs among them."""
        counts = [row["tokens"] for row in self._rows.values()]
        return sum(count[0] for count in counts), sum(count[1] for count in counts)

    def close(self) -> None:
        """Lets another process have the file."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        while line:
            line = line[self._file.write(line) :]

    def _read(self, line: bytes, place: str) -> None:
        try:
            row = json.loads(line)
            key = row["key"]
            reading = Reading(row["better"], row["reply"], row["problem"], tuple(row["tokens"]))
            if reading.better not in (1, 2, None) or [type(count) for count in reading.tokens] != [int, int]:
                raise ValueError("better must be 1, 2 or null, tokens two counts")
            if not all(isinstance(text, str) for text in (key, reading.reply, reading.problem)):
                raise ValueError("key, reply and problem must be text")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{place}: is no verdict ({error}); remove the line") from None
        if key in self._rows:
            raise ValueError(f"{place}: {key} has a verdict further up; remove the line")
        self._rows[key] = row | {"tokens": reading.tokens}


def _sync_folder(folder: Path) -> None:
    """Makes a new file's name outlast a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
