"""The directory of a run: it belongs to one configuration, and everything in it appears whole."""

import json
import os
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vla_jax.training.configuration import changes_since, plain

_RECORD = "config.json"
# Listed even by a run that went no further; the run that follows writes its own.
BAD_RECORDS = "bad_records.jsonl"


class WorkdirError(ValueError):
    """A directory that cannot be this run's."""


def check_free(path: Path, config: ConfigDict) -> list[str]:
    """Finds that the directory is this run's or may become so, and writes nothing.

    Returns:
      In what a run that it holds was computed otherwise than it would be now.

    Raises:
      WorkdirError: where it belongs to another configuration (the differences are named), holds something
        else, or is in an object store.
    """
    # A path has one slash of "gs://" left, and would be a folder named "gs:" here.
    if re.match(r"[a-z0-9]{2,}:/", str(path)):
        raise WorkdirError(
            f"{path}: a run goes to a folder, not to an object store; take a --workdir on shared storage"
        )
    record = path / _RECORD
    if record.is_file():
        changes, how = changes_since(_recorded(record), config)
        if changes:
            raise WorkdirError(
                f"{path} belongs to a run with another configuration ({'; '.join(changes)}); "
                "choose another --workdir, or repeat the command that began it"
            )
        return how
    if path.exists() and (
        not path.is_dir() or any(not file.name.endswith(BAD_RECORDS) for file in path.iterdir())
    ):
        raise WorkdirError(f"{path} is not empty and no run of ours; choose another --workdir")
    return []


def _recorded(record: Path) -> dict[str, Any]:
    try:
        recorded = json.loads(record.read_text())
        if not isinstance(recorded, dict):
            raise ValueError(f"it holds a {type(recorded).__name__}, not the fields of a configuration")
    except ValueError as error:
        raise WorkdirError(
            f"{record} cannot be read ({error}); restore it, or choose another --workdir"
        ) from None
    return recorded


def configuration_of(path: Path) -> ConfigDict:
    """The configuration of the run whose directory this is.

    Raises:
      WorkdirError: where it is no run's, or its record cannot be read.
    """
    if not is_claimed(path) or "recipe" not in (recorded := _recorded(path / _RECORD)):
        raise WorkdirError(f"{path} is not the workdir of a run")
    return ConfigDict(recorded)


def is_claimed(path: Path) -> bool:
    """Whether a run began here."""
    return (path / _RECORD).is_file()


def claim(path: Path, config: ConfigDict) -> None:
    """Makes the directory this run's, or finds that it already is.

    Raises:
      WorkdirError: as `check_free`, and where it cannot be written.
    """
    check_free(path, config)
    if (path / _RECORD).is_file():
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / _RECORD, plain(config))
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
