"""JSON files of other people: an object, or a message that names the file."""

import json
from pathlib import Path
from typing import Any

from vla_jax.interop.checkpoint import CheckpointError


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      CheckpointError: where the file is not there, is no JSON, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); copy it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: holds {type(content).__name__}, not an object; copy it again")
    return content
