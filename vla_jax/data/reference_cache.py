"""What the frozen reference said of every record, kept on disk so that it is computed once.

A folder of three files mapped into memory, one row a record, beside a manifest that says what they were
computed with. A row counts once its stamp is written, last: a hash of what the record looked like to the
model. So an interrupted build goes on where it stopped, and a cache that fits the model, the views or the
record no longer is refused, never used.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt32

from vla_jax.data.batches import Kept
from vla_jax.data.encoding import Encoded, stamp

_MANIFEST = "manifest.json"
_ABSENT = 0


class StaleCacheError(ValueError):
    """A reference cache that was computed with something else."""


class ReferenceCache:
    """Log-probabilities of every candidate's tokens, and the responses that the reference made.

    Args:
      folder: where it lies, or will; begun where there is none.
      identity: what the values depend on besides the records: plain values, compared by name.
      records, candidates, made, length: sizes; `length` is the longest response.

    Raises:
      StaleCacheError: where the folder holds a cache of another identity; what differs is named.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        *,
        records: int,
        candidates: int,
        made: int,
        length: int,
    ):
        self.folder = folder
        sizes = {"records": records, "candidates": candidates, "made": made, "length": length}
        wanted = json.loads(json.dumps({**identity, **sizes}))
        manifest = folder / _MANIFEST
        begun = manifest.is_file()
        if begun:
            self._compare(json.loads(manifest.read_text()), wanted)
        else:
            folder.mkdir(parents=True, exist_ok=True)
        self._tokens = _mapped(folder / "log_probs.f32", np.float32, (records, candidates, length), begun)
        self._made = _mapped(folder / "made.i32", np.int32, (records, made, length), begun)
        self._stamps = _mapped(folder / "stamps.u32", np.uint32, (records,), begun)
        if not begun:
            # Last, so that a manifest never stands beside files that are not there.
            partial = folder / f".{_MANIFEST}.{os.getpid()}"
            partial.write_text(json.dumps(wanted, indent=2) + "\n")
            os.replace(partial, manifest)

    def _compare(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed:
            raise StaleCacheError(
                f"the reference cache {self.folder} was computed with another {', '.join(changed)}; remove "
                "the folder to compute it anew, or set reference.path to another one"
            )

    def missing(self, indices: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Those of the records that are not kept yet."""
        return indices[self._stamps[indices] == _ABSENT]

    def write(self, indices: Int[np.ndarray, " n"], rows: Sequence[Encoded | None], values: Kept) -> None:
        """Keeps what the reference said of these records; None among the rows is left out."""
        length = values.tokens.shape[2]
        for i, (index, row) in enumerate(zip(indices, rows, strict=True)):
            if row is not None:
                self._tokens[index, :, :length] = values.tokens[i]
                self._made[index, :, :length] = values.made[i]
        _flush(self._tokens, self._made)
        for index, row in zip(indices, rows, strict=True):
            if row is not None:
                self._stamps[index] = stamp(row)
        _flush(self._stamps)

    def read(self, indices: Int[np.ndarray, " n"], stamps: UInt32[np.ndarray, " n"], length: int) -> Kept:
        """What the reference said of these records, padded to `length`; zeros where the stamp is 0.

        Raises:
          StaleCacheError: where a record is not kept, or has changed since it was.
        """
        for index in indices[(self._stamps[indices] != stamps) & (stamps != _ABSENT)]:
            kept = self._stamps[index] != _ABSENT
            raise StaleCacheError(
                f"record {index} "
                + ("has changed since the reference cache" if kept else "is missing from the cache")
                + f" {self.folder} was built; remove the folder to compute it anew"
            )
        present = (stamps != _ABSENT)[:, None, None]
        tokens = np.where(present, self._tokens[indices, :, :length], np.float32(0))
        return Kept(tokens, np.where(present, self._made[indices, :, :length], np.int32(0)))


def _mapped(path: Path, dtype: type, shape: tuple[int, ...], begun: bool) -> np.ndarray:
    """A file of zeros mapped into memory, or the one that must be there where the cache was begun before."""
    if 0 in shape:
        return np.zeros(shape, dtype)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if begun and not (path.is_file() and path.stat().st_size == size):
        raise StaleCacheError(
            f"the reference cache {path.parent} is damaged: {path.name} is missing or has not its {size:,} "
            "bytes; remove the folder to compute it anew"
        )
    with path.open("ab") as file:
        if file.tell() != size:
            file.truncate(size)
    return np.memmap(path, dtype, "r+", shape=shape)


def _flush(*arrays: np.ndarray) -> None:
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
