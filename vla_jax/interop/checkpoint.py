"""Tensors of a Hugging Face folder: one safetensors file, or several under an index, read one at a time."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit; says which file or tensors, and what to do."""


class Place(NamedTuple):
    """Where a tensor lies: the file, open, and its name there."""

    file: Path
    opened: Any
    name: str


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds; nothing is read before `read`.

    Attributes:
      folder: where it is.
      places: tensor -> where it lies.
      shapes: tensor -> its shape.
    """

    folder: Path
    places: Mapping[str, Place]
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> Shaped[np.ndarray, "..."]:
        """One tensor, in the dtype it is stored in.

        Raises:
          CheckpointError: where the file breaks off.
        """
        place = self.places[name]
        try:
            return place.opened.get_tensor(place.name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{place.file}: {place.name} cannot be read ({error})") from None

    def renamed(self, names: Mapping[str, str | None]) -> "Checkpoint":
        """The same with some tensors under other names, or, where that is None, without them."""
        kept = {name: names.get(name, name) for name in self.shapes}
        new = {to: name for name, to in kept.items() if to is not None}
        places = {to: self.places[name] for to, name in new.items()}
        return Checkpoint(self.folder, places, {to: self.shapes[name] for to, name in new.items()})

    def read_layers(self, name: str) -> Iterator[Shaped[np.ndarray, "..."]]:
        """One tensor, one index of its first axis after the other.

        Raises:
          CheckpointError: where the file breaks off.
        """
        place = self.places[name]
        for layer in range(self.shapes[name][0]):
            try:
                # Mapped, since a slice of a file that is not would be cut from the whole tensor; and anew for
                # each, since pages of a mapped file count as the process's own.
                with safe_open(place.file, "np") as mapped:
                    yield mapped.get_slice(place.name)[layer]
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{place.file}: {place.name} cannot be read ({error})") from None


def open_checkpoint(
    folder: Path, stem: str = "model", rename: Callable[[str], str] = lambda name: name
) -> Checkpoint:
    """Opens `<stem>.safetensors`, or all files that `<stem>.safetensors.index.json` names.

    Args:
      folder: the folder.
      stem: what the files' names begin with.
      rename: gives each tensor the name by which it will be asked for.

    Raises:
      CheckpointError: where there is no such file, an index names files or tensors that are not there, or a
        file is truncated.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        listed: dict[str, list[str]] | None = None
        files = [single]
    elif index.is_file():
        listed = _listed(index)
        files = [folder / name for name in sorted(listed)]
        if absent := [file.name for file in files if not file.is_file()]:
            raise CheckpointError(
                f"{index} names files that are not there: {', '.join(absent)}; copy them too"
            )
    else:
        raise CheckpointError(_nothing_here(folder, stem))
    places: dict[str, Place] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            # Not mapped into memory: pages of the file would count as the process's own.
            opened = safe_open(file, "np", backend="pread")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file}: cannot be read ({error}); it is truncated or no safetensors file, copy it again"
            ) from None
        stored = opened.keys()
        if listed is not None and (lost := sorted(set(listed[file.name]) - set(stored))):
            raise CheckpointError(f"{index} says that {file.name} holds {', '.join(lost)}; it does not")
        for name in stored:
            if (known := rename(name)) in places:
                raise CheckpointError(f"{folder}: {name} and {places[known].name} are both {known}")
            places[known] = Place(file, opened, name)
            shapes[known] = tuple(opened.get_slice(name).get_shape())
    return Checkpoint(folder, places, shapes)


def _listed(index: Path) -> dict[str, list[str]]:
    """File -> the tensors that the index places in it."""
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        files: dict[str, list[str]] = {}
        for tensor, file in weight_map.items():
            if not isinstance(file, str):
                raise ValueError(f"{tensor} lies in {file!r}")
            files.setdefault(file, []).append(tensor)
        return files
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: no index that can be read ({error!r}); copy it again") from None


def _nothing_here(folder: Path, stem: str) -> str:
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        return (
            f"{folder} holds {pickled[0]}, which only PyTorch reads; save it as safetensors first: "
            "Model.from_pretrained(folder).save_pretrained(other, safe_serialization=True)"
        )
    return f"{folder}: neither {stem}.safetensors nor {stem}.safetensors.index.json is there"
