"""Opens the source that a configuration names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vla_jax.data import formats
from vla_jax.data.formats.preference_folder import format_with
from vla_jax.data.mixture import Mixture
from vla_jax.data.published import Published
from vla_jax.data.schema import Record, Source
from vla_jax.data.world import (
    EvaluationWorld,
    PreferenceWorld,
    SupervisedWorld,
    TagWorld,
    WorldConfig,
    training_corpus,
)

PREFERENCE_FOLDER = "preference_folder"
WORLDS = ("world_tags", "world_supervised", "world_preference")
MIXTURE = "mixture"
SOURCES = (*WORLDS, PREFERENCE_FOLDER, *formats.available(), MIXTURE)

# What is read from files.
Files = Published | Mixture

# Enough text for every word of the world to become a token.
_CORPUS_RECORDS = 500


def open_source(data: Mapping[str, Any], world: WorldConfig) -> Source:
    """The records to train on.

    Args:
      data: the configuration's `data` section: `source` names the world or the format of a file; `path`,
        `images` and `box_format` are for files, `mixture` for several of them; `size` and `flip_labels` for
        the built-in world.
      world: the built-in world.

    Raises:
      ValueError: where there is no such source.
      DataError: where its records cannot be used.
    """
    check_choices(data)
    match data["source"]:
        case "world_tags":
            return TagWorld(world, data["size"])
        case "world_supervised":
            return SupervisedWorld(world, data["size"])
        case "world_preference":
            return PreferenceWorld(world, data["size"], flip_labels=data["flip_labels"])
        case "mixture":
            return _mixture(data)
    return _file(data)


def _file(data: Mapping[str, Any]) -> Published:
    own = data["source"] == PREFERENCE_FOLDER
    format = format_with(data["box_format"]) if own else formats.named(data["source"])
    return Published(data["path"], format, data["images"])


def _mixture(data: Mapping[str, Any]) -> Mixture:
    files, weights = [], []
    for part in data["mixture"]:
        if unknown := set(part) - {"source", "path", "images", "box_format", "weight"}:
            raise ValueError(
                f"data.mixture has a part with {min(unknown)!r}; see data.mixture in the configuration"
            )
        if part.get("source") in (*WORLDS, MIXTURE) or not {"source", "path"} <= set(part):
            raise ValueError(
                "data.mixture has a part that is no file; give it 'source', its format, and 'path'"
            )
        files.append(_file({"images": "", "box_format": data["box_format"], **part}))
        weights.append(float(part.get("weight", len(files[-1]))))
    if not files:
        raise ValueError("data.mixture is empty; name files in it, or another data.source")
    return Mixture(files, weights)


def check_choices(data: Mapping[str, Any]) -> None:
    """Refuses words of a `data` section that name nothing.

    Raises:
      ValueError: names the field and what there is to choose.
    """
    for field, known in (("source", SOURCES), ("on_bad_record", ("error", "skip"))):
        if data[field] not in known:
            raise ValueError(f"data.{field} is {data[field]!r}; choose one of {', '.join(known)}")


@dataclass(frozen=True)
class Tail:
    """The records of a source from one place on.

    Attributes:
      source: random access to records.
      start: the first of them.
    """

    source: Source
    start: int

    def __len__(self) -> int:
        return len(self.source) - self.start

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} records; there is no record {index}")
        return self.source[self.start + index]


def open_held_out(data: Mapping[str, Any], world: WorldConfig, path: str, records: int) -> Source:
    """Records to evaluate on that are not trained on: of a file of the same format, or more of the world.

    Args:
      data: as `open_source` has it.
      world: the built-in world.
      path: the file; unread where the world makes them.
      records: how many the world makes.

    Raises:
      DataError: where the file's records cannot be used.
    """
    if data["source"] in WORLDS:
        return Tail(open_source({**data, "size": data["size"] + records}, world), data["size"])
    return open_source({**data, "path": path}, world)


def open_evaluation(
    data: Mapping[str, Any], world: WorldConfig, scenes: int, of_world: bool = False
) -> Source:
    """The records to evaluate on: held-out scenes of the world, or the user's own annotated photographs.

    Args:
      data: as `open_source` has it.
      world: the built-in world.
      scenes: how many the world makes.
      of_world: take the world's whatever the source is.
    """
    if of_world or data["source"] in WORLDS:
        return EvaluationWorld(world, scenes)
    return open_source(data, world)


def corpus(data: Mapping[str, Any], world: WorldConfig) -> Iterator[str]:
    """Texts to train a tokenizer on: the world's, and those of the source where it is a file."""
    yield from training_corpus(world, _CORPUS_RECORDS)
    if data["source"] not in WORLDS:
        source = open_source(data, world)
        assert isinstance(source, Files)
        yield from source.texts()
