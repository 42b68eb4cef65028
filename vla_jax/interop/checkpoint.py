"""Tensors of a Hugging Face folder: one safetensors file, or several under an index, read one at a time."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit; says which file or tensors, and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds; nothing is read before `read`.

    Attributes:
      folder: where it is.
      places: tensor -> the open file it lies in, and its name there.
      shapes: tensor -> its shape.
    """

    folder: Path
    places: Mapping[str, tuple[Any, str]]
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> Shaped[np.ndarray, "..."]:
        """One tensor, in the dtype it is stored in.

        Raises:
          CheckpointError: where the file breaks off.
        """
        file, stored = self.places[name]
        try:
            return file.get_tensor(stored)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.folder}: {stored} cannot be read ({error})") from None


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
    places: dict[str, tuple[Any, str]] = {}
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
                raise CheckpointError(f"{folder}: {name} and {places[known][1]} are both {known}")
            places[known] = (opened, name)
            shapes[known] = tuple(opened.get_slice(name).get_shape())
    return Checkpoint(folder, places, shapes)


def _listed(index: Path) -> dict[str, list[str]]:
    """File -> the tensors that the index places in it."""
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        files: dict[str, list[str]] = {}
        for tensor, file in weight_map.items():
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
