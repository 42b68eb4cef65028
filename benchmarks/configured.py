"""Configurations with settings, as the command line makes them."""

import ast
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from vla_jax.train import load_config


def configured(config: str, settings: Iterable[str]) -> ConfigDict:
    """A config file's configuration with `a.b=c` settings on top."""
    loaded = load_config(Path(config))
    for setting in settings:
        field, _, value = setting.partition("=")
        *sections, name = field.split(".")
        section = loaded
        for each in sections:
            section = section[each]
        section[name] = value if isinstance(section[name], str) else ast.literal_eval(value)
    return loaded


def made_once(folder: Path, settings: Sequence[str], make: Callable[[], object]) -> Path:
    """A folder that a campaign makes where it is not there, and the settings it was made with beside it.

    Raises:
      ValueError: where it was made with others.
    """
    beside = folder.with_name(f"{folder.name}.settings.json")
    if not folder.exists():
        make()
        beside.write_text(json.dumps(list(settings)) + "\n")
    elif beside.is_file() and (known := json.loads(beside.read_text())) != list(settings):
        raise ValueError(f"{folder} was made with {known}, not with {list(settings)}; choose another --runs")
    return folder
