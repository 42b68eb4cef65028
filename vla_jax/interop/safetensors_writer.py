"""Writing safetensors one tensor at a time, split into files of limited size.

The library's own `save_file` wants every tensor of a file in memory at once; a model that fills the memory
has no room for a second copy of five gigabytes of it. The format (eight bytes of header length, a JSON
header, the bytes) is read back with the library in the tests.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

# What Hugging Face calls 5 GB.
MAX_FILE_BYTES = 5 * 10**9

_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


class Tensor(NamedTuple):
    """A tensor that will be written.

    Attributes:
      name: its name in the file.
      shape, dtype: of what `read` gives.
      read: gives its value; called when its turn comes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[], Shaped[np.ndarray, "..."]]

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def write(
    folder: Path,
    tensors: Sequence[Tensor],
    stem: str = "model",
    max_file_bytes: int = MAX_FILE_BYTES,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Writes `<stem>.safetensors`, or numbered files and their index where that would be too large.

    Args:
      folder: exists already.
      tensors: in the order in which they are written.
      stem: what the files' names begin with.
      max_file_bytes: most bytes of tensors in one file; a larger tensor has a file to itself.
      progress: called with the bytes of each tensor written.
    """
    files: list[list[Tensor]] = [[]]
    for tensor in tensors:
        if files[-1] and sum(t.num_bytes for t in files[-1]) + tensor.num_bytes > max_file_bytes:
            files.append([])
        files[-1].append(tensor)
    if len(files) == 1:
        _write_file(folder / f"{stem}.safetensors", files[0], progress)
        return
    weight_map: dict[str, str] = {}
    for i, part in enumerate(files, 1):
        name = f"{stem}-{i:05d}-of-{len(files):05d}.safetensors"
        _write_file(folder / name, part, progress)
        weight_map |= {tensor.name: name for tensor in part}
    total = sum(tensor.num_bytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _write_file(file: Path, tensors: Sequence[Tensor], progress: Callable[[int], object] | None) -> None:
    with open(file, "wb") as out:
        header = json.dumps(_header(tensors), separators=(",", ":")).encode()
        # Padded with blanks, so that the tensors begin at a multiple of eight bytes.
        header += b" " * (-len(header) % 8)
        out.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors:
            value = np.asarray(tensor.read(), order="C")
            if value.shape != tensor.shape or value.dtype != np.dtype(tensor.dtype):
                raise AssertionError(f"{tensor.name}: {value.dtype}{value.shape} is not what was announced")
            out.write(value.reshape(-1).view(np.uint8).data)
            if progress is not None:
                progress(tensor.num_bytes)


def _header(tensors: Sequence[Tensor]) -> Mapping[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        end = start + tensor.num_bytes
        header[tensor.name] = {
            "dtype": _CODES[np.dtype(tensor.dtype).name],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    return header
