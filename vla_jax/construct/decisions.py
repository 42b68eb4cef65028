"""What a model decided about each record, kept as it is made: asking takes hours, and may be stopped."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_jax.rollout.verifying import Verdict


class Decisions:
    """Verdicts about the records of a data set, in their order; None of one that cannot be used.

    Args:
      path: a JSON line that says what they depend on, and one a record.
      identity: what they depend on.

    Attributes:
      path: the file.
      made: the verdicts.
      contents: what the records held that they are about, see `content.content_of`.

    Raises:
      ValueError: where those that are there depend on something else.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]):
        self.path, self.made, self.contents = path, list[Verdict | None](), list[str | None]()
        head = json.dumps(identity, sort_keys=True)
        # What follows the last end of a line was torn by a kill.
        first, *lines = path.read_text().split("\n")[:-1] if path.is_file() else [head]
        if first != head:
            raise ValueError(
                f"{path} was decided by another model, or for other data or options; remove it, or choose "
                "another folder"
            )
        for line in lines:
            self._take(*json.loads(line))
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(f"{line}\n" for line in (head, *lines)))
        os.replace(partial, path)

    def add(self, verdicts: Sequence[Verdict | None], contents: Sequence[str | None]) -> None:
        """Keeps further ones."""
        rows = list(zip(verdicts, contents, strict=True))
        with self.path.open("a") as file:
            file.write("".join(f"{json.dumps(row)}\n" for row in rows))
        for row in rows:
            self._take(*row)

    def _take(self, verdict: Sequence[Any] | None, content: str | None) -> None:
        self.made.append(None if verdict is None else Verdict(*verdict))
        self.contents.append(content)
