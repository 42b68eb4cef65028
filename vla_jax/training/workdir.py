"""The directory of a run: it belongs to one configuration, and everything in it appears whole."""

import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vla_jax.training.configuration import differences, plain


class WorkdirError(ValueError):
    """A directory that cannot be this run's."""


def claim(path: Path, config: ConfigDict) -> None:
    """Makes the directory this run's, or finds that it already is.

    Raises:
      WorkdirError: where it belongs to another configuration (the differences are named), holds something
        else, or cannot be written.
    """
    record = path / "config.json"
    if record.is_file():
        if changes := differences(json.loads(record.read_text()), plain(config)):
            raise WorkdirError(
                f"{path} belongs to a run with another configuration ({'; '.join(changes)}); "
                "choose another --workdir, or repeat the command that began it"
            )
        return
    if path.is_dir() and any(path.iterdir()):
        raise WorkdirError(f"{path} is not empty and no run of ours; choose another --workdir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(record, plain(config))
    except OSError as error:
        raise WorkdirError(f"{path} cannot be written ({error.strerror}); choose another --workdir") from None


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(value, indent=2) + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
