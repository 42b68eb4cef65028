"""What a command that asks a model has made so far, kept beside the set until that is whole."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_jax.training.one_pass import Answered


class Journal:
    """A file of JSON lines, one a record, that a command goes on with after it was stopped.

    Args:
      path: the file.
      identity: what is made, from what, by whom; a journal of another is refused.

    Attributes:
      path: the file.
      made: index -> what was made for its record.
      contents: index -> what the record held then, see `content.content_of`; "" of those that nothing was
        made of.

    Raises:
      ValueError: where the file is another command's.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]):
        self.path = path
        lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
        rows = [row for row in map(_row, lines) if row is not None]
        begun = json.loads(json.dumps(dict(identity)))
        if rows and rows[0] != begun:
            raise ValueError(
                f"{path} was begun with another model, other data or other options; repeat the command that "
                "began it, or remove the file"
            )
        self.made = {row["index"]: Answered(row["responses"], row["provenance"]) for row in rows[1:]}
        self.contents: dict[int, str] = {row["index"]: row["content"] for row in rows[1:]}
        # Anew, since a kill may have torn its last line.
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows or [begun]))
        os.replace(partial, path)

    def add(self, made: Mapping[int, Answered], contents: Mapping[int, str]) -> None:
        """Keeps what was made for some records."""
        with self.path.open("a") as file:
            file.writelines(
                json.dumps({"index": index, "content": contents[index], **each._asdict()}) + "\n"
                for index, each in made.items()
            )
            file.flush()
            os.fsync(file.fileno())
        self.made.update(made)
        self.contents.update(contents)


def _row(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
