"""Configurations with settings, as the command line makes them."""

import ast
from collections.abc import Iterable
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
