"""A model as a folder: `model.json`, `params.safetensors`, `adapter.safetensors`, the tokenizer's files, and
under `hugging_face/` the files of the checkpoint that it came from.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from transformers import AutoTokenizer

from vla_jax.data.image_processing import ImageProcessor
from vla_jax.interop.checkpoint import CheckpointError, open_checkpoint
from vla_jax.interop.folders import whole_folder
from vla_jax.interop.safetensors_writer import Tensor, write
from vla_jax.interop.weights import stack_layers
from vla_jax.models import llava, lora, parameters
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter, LoraConfig
from vla_jax.models.parameters import Params

_ORIGINALS = "hugging_face"


@dataclass(frozen=True)
class Model:
    """A model with everything it takes to ask it something, and to hand it back where it came from.

    Attributes:
      config: its shape.
      params: base parameters.
      tokenizer: a transformers fast tokenizer with a chat template.
      processor: fits images into the vision tower.
      adapter: LoRA adapter; None where there is none.
      lora: how the adapter was made; None where there is none.
      origin: the checkpoint that `params` are, by folder or hub id; "" where they are nobody else's.
      files: that checkpoint's own files (config.json and the like), as they came; none for a model made here.
    """

    config: LlavaConfig
    params: Params
    tokenizer: Any
    processor: ImageProcessor
    adapter: Adapter | None = None
    lora: LoraConfig | None = None
    origin: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def context(self) -> int:
        """The most tokens that the checkpoint was made for; 0 where it does not say."""
        settings = json.loads(self.files.get("config.json", b"{}"))
        return int((settings.get("text_config") or {}).get("max_position_embeddings") or 0)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer: those of the checkpoint's settings, or the tokenizer's."""
        for name, section in (
            ("generation_config.json", None),
            ("config.json", None),
            ("config.json", "text_config"),
        ):
            settings = json.loads(self.files.get(name, b"{}"))
            ids = (settings.get(section) or {} if section else settings).get("eos_token_id")
            if ids is not None:
                return tuple(ids) if isinstance(ids, list) else (ids,)
        return (self.tokenizer.eos_token_id,)


def save_model(
    path: Path,
    model: Model,
    progress: Callable[[int], object] | None = None,
    replace: bool = True,
) -> None:
    """Writes the folder; it appears whole or not at all.

    Args:
      path: the folder.
      model: the model.
      progress: called with the bytes of each tensor written.
      replace: take the place of one that is there.

    Raises:
      FileExistsError: where there is one that should not be replaced.
      ValueError: where the model has an adapter but not its `lora`, or the reverse.
      OSError: where there is no room for it.
    """
    if (model.adapter is None) != (model.lora is None):
        raise ValueError(f"{path}: an adapter is saved with its lora configuration; give both or neither")
    params, adapter = _tensors(model.params), _tensors(model.adapter)
    needs = sum(tensor.num_bytes for tensor in params + adapter)
    with whole_folder(path, needs, replace) as partial_folder:
        write(partial_folder, params, "params", max_file_bytes=needs + 1, progress=progress)
        if adapter:
            write(partial_folder, adapter, "adapter", max_file_bytes=needs + 1, progress=progress)
        shape = {
            "config": model.config.to_dict(),
            "processor": asdict(model.processor),
            "lora": asdict(model.lora) if model.lora else None,
            "origin": model.origin,
        }
        (partial_folder / "model.json").write_text(json.dumps(shape, indent=2) + "\n")
        model.tokenizer.save_pretrained(partial_folder)
        if model.files:
            (partial_folder / _ORIGINALS).mkdir()
        for name, content in model.files.items():
            (partial_folder / _ORIGINALS / name).write_bytes(content)


def load_model(path: Path) -> Model:
    """Reads a folder that `save_model` wrote, or a working directory that holds one as `model/`.

    Raises:
      FileNotFoundError: where there is no such folder.
      ValueError: where a file in it is damaged or does not fit the model's shape; says which and how.
    """
    folder = path / "model" if (path / "model" / "model.json").is_file() else path
    if not (folder / "model.json").is_file():
        raise FileNotFoundError(_no_model(path))
    try:
        shape = json.loads((folder / "model.json").read_text())
        config = LlavaConfig.from_dict(shape["config"])
        low_rank = LoraConfig(**shape["lora"]) if shape["lora"] else None
        # Folders from before there was a choice padded images to a square.
        processor = (
            ImageProcessor(**_tuples(shape["processor"]))
            if "processor" in shape
            else ImageProcessor.square(config.vision.image_size)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'model.json'}: cannot be read ({error!r}); copy the model again"
        ) from None
    table = llava.table(config)
    params = _read(folder, "params", parameters.abstract(table))
    adapter = None
    if low_rank is not None:
        expected = jax.eval_shape(lambda: lora.initialise(table, low_rank, jax.random.key(0)))
        adapter = _read(folder, "adapter", expected)
    originals = (folder / _ORIGINALS).glob("*")
    return Model(
        config,
        params,
        AutoTokenizer.from_pretrained(folder),
        processor,
        adapter,
        low_rank,
        shape.get("origin", ""),
        {file.name: file.read_bytes() for file in originals},
    )


def _no_model(path: Path) -> str:
    if (path / "config.json").is_file():
        return (
            f"{path}: a Hugging Face checkpoint; import it first: "
            f"python -m vla_jax.convert import --from={path} --to=DIR"
        )
    return f"{path}: no model here (no model.json); give a model folder or the workdir of a finished run"


def _read(folder: Path, stem: str, expected: Any) -> Any:
    """The tree of `expected` with the file's arrays; every missing, unexpected or mis-shaped one is named."""
    file = folder / f"{stem}.safetensors"
    try:
        stored = open_checkpoint(folder, stem)
    except CheckpointError as error:
        reason = error if file.is_file() else "it is not there"
        raise ValueError(f"{file}: cannot be read ({reason}); train or copy the model again") from None
    wanted = _flatten(expected)
    problems = [f"missing {name}" for name in wanted.keys() - stored.shapes.keys()]
    problems += [f"unexpected {name}" for name in stored.shapes.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {stored.shapes[name]}, not {wanted[name].shape}"
        for name in wanted.keys() & stored.shapes.keys()
        if stored.shapes[name] != wanted[name].shape
    ]
    if problems:
        raise ValueError(f"{file} does not fit its model.json: {'; '.join(sorted(problems))}")

    def read(name: str) -> Array:
        shape = stored.shapes[name]
        # The large ones are stacks of layers; read whole, one would be there twice for a moment.
        return (
            stack_layers(shape, stored.read_layers(name))
            if len(shape) > 2
            else jnp.asarray(stored.read(name))
        )

    return jax.tree.unflatten(jax.tree.structure(expected), [read(name) for name in wanted])


def _tensors(tree: Any) -> list[Tensor]:
    leaves = _flatten(tree).items()
    return [Tensor(name, leaf.shape, leaf.dtype, partial(np.asarray, leaf)) for name, leaf in leaves]


def _flatten(tree: Any) -> dict[str, Any]:
    """Path -> leaf, in the tree's own order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {name: _tuples(item) for name, item in value.items()} if isinstance(value, dict) else value
