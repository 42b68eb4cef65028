"""Opens the source that a configuration names."""

from collections.abc import Iterator, Mapping
from typing import Any

from vla_jax.data.preference_folder import PreferenceFolder
from vla_jax.data.schema import Source
from vla_jax.data.world import (
    EvaluationWorld,
    PreferenceWorld,
    SupervisedWorld,
    TagWorld,
    WorldConfig,
    training_corpus,
)

PREFERENCE_FOLDER = "preference_folder"
SOURCES = ("world_tags", "world_supervised", "world_preference", PREFERENCE_FOLDER)

# Enough text for every word of the world to become a token.
_CORPUS_RECORDS = 500


def open_source(data: Mapping[str, Any], world: WorldConfig) -> Source:
    """The records to train on.

    Args:
      data: the configuration's `data` section: `source` names the reader; `path`, `box_format` and
        `on_bad_record` are for files; `size` and `flip_labels` for the built-in world.
      world: the built-in world.

    Raises:
      ValueError: where there is no such source.
      DataError: where its records cannot be used.
    """
    if data["on_bad_record"] not in ("error", "skip"):
        raise ValueError(f"data.on_bad_record is {data['on_bad_record']!r}; choose error or skip")
    match data["source"]:
        case "world_tags":
            return TagWorld(world, data["size"])
        case "world_supervised":
            return SupervisedWorld(world, data["size"])
        case "world_preference":
            return PreferenceWorld(world, data["size"], flip_labels=data["flip_labels"])
        case "preference_folder":
            return PreferenceFolder(data["path"], data["box_format"], data["on_bad_record"] == "skip")
    raise ValueError(f"data.source is {data['source']!r}; choose one of {', '.join(SOURCES)}")


def open_evaluation(data: Mapping[str, Any], world: WorldConfig, scenes: int) -> Source:
    """The records to evaluate on: held-out scenes of the world, or the user's own annotated photographs."""
    if data["source"] == PREFERENCE_FOLDER:
        return open_source(data, world)
    return EvaluationWorld(world, scenes)


def corpus(data: Mapping[str, Any], world: WorldConfig) -> Iterator[str]:
    """Texts to train a tokenizer on: the world's, and those of the source where it is a file."""
    yield from training_corpus(world, _CORPUS_RECORDS)
    if data["source"] == PREFERENCE_FOLDER:
        source = open_source(data, world)
        assert isinstance(source, PreferenceFolder)
        yield from source.texts()
