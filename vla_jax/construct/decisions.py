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

    Raises:
      ValueError: where those that are there depend on something else.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]):
        self._path, self.made = path, list[Verdict | None]()
        head = json.dumps(identity, sort_keys=True)
        # What follows the last end of a line was torn by a kill.
        first, *lines = path.read_text().split("\n")[:-1] if path.is_file() else [head]
        if first != head:
            raise ValueError(
                f"{path} was decided by another model, or for other data or options; remove it, or choose "
                "another folder"
            )
        self.made += [None if (said := json.loads(line)) is None else Verdict(*said) for line in lines]
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(f"{line}\n" for line in (head, *lines)))
        os.replace(partial, path)

    def add(self, verdicts: Sequence[Verdict | None]) -> None:
        """Keeps further ones."""
        with self._path.open("a") as file:
            file.write("".join(f"{json.dumps(verdict)}\n" for verdict in verdicts))
        self.made += verdicts
