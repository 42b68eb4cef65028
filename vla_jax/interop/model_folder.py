"""A model as a folder: `model.json`, `params.safetensors`, `adapter.safetensors`, the tokenizer's files."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file
from transformers import AutoTokenizer

from vla_jax.models import llava, lora, parameters
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter, LoraConfig
from vla_jax.models.parameters import Params


@dataclass(frozen=True)
class Model:
    """A model with everything it takes to ask it something.

    Attributes:
      config: its shape.
      params: base parameters.
      tokenizer: a transformers fast tokenizer with a chat template.
      adapter: LoRA adapter; None where there is none.
      lora: how the adapter was made; None where there is none.
    """

    config: LlavaConfig
    params: Params
    tokenizer: Any
    adapter: Adapter | None = None
    lora: LoraConfig | None = None


def save_model(path: Path, model: Model) -> None:
    """Writes the folder; it appears whole or not at all, and replaces one that was there.

    Raises:
      ValueError: where the model has an adapter but not its `lora`, or the reverse.
    """
    if (model.adapter is None) != (model.lora is None):
        raise ValueError(f"{path}: an adapter is saved with its lora configuration; give both or neither")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        save_file(_flatten(model.params), partial / "params.safetensors")
        if model.adapter is not None:
            save_file(_flatten(model.adapter), partial / "adapter.safetensors")
        shape = {"config": model.config.to_dict(), "lora": asdict(model.lora) if model.lora else None}
        (partial / "model.json").write_text(json.dumps(shape, indent=2) + "\n")
        model.tokenizer.save_pretrained(partial)
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_model(path: Path) -> Model:
    """Reads a folder that `save_model` wrote, or a working directory that holds one as `model/`.

    Raises:
      FileNotFoundError: where there is no such folder.
      ValueError: where a file in it is damaged or does not fit the model's shape; says which and how.
    """
    folder = path / "model" if (path / "model" / "model.json").is_file() else path
    if not (folder / "model.json").is_file():
        raise FileNotFoundError(
            f"{path}: no model here (no model.json); give a model folder or the workdir of a finished run"
        )
    try:
        shape = json.loads((folder / "model.json").read_text())
        config = LlavaConfig.from_dict(shape["config"])
        low_rank = LoraConfig(**shape["lora"]) if shape["lora"] else None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'model.json'}: cannot be read ({error!r}); copy the model again"
        ) from None
    table = llava.table(config)
    params = _read(folder / "params.safetensors", parameters.abstract(table))
    adapter = None
    if low_rank is not None:
        expected = jax.eval_shape(lambda: lora.initialise(table, low_rank, jax.random.key(0)))
        adapter = _read(folder / "adapter.safetensors", expected)
    return Model(config, params, AutoTokenizer.from_pretrained(folder), adapter, low_rank)


def _read(file: Path, expected: Any) -> Any:
    """The tree of `expected` with the file's arrays; every missing, unexpected or mis-shaped one is named."""
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); train or copy the model again") from None
    wanted = _flatten(expected)
    problems = [f"missing {name}" for name in wanted.keys() - stored.keys()]
    problems += [f"unexpected {name}" for name in stored.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {stored[name].shape}, not {wanted[name].shape}"
        for name in wanted.keys() & stored.keys()
        if stored[name].shape != wanted[name].shape
    ]
    if problems:
        raise ValueError(f"{file} does not fit its model.json: {'; '.join(sorted(problems))}")
    leaves, tree = jax.tree.flatten(expected)
    return jax.tree.unflatten(tree, [jnp.asarray(stored[name]) for name in wanted][: len(leaves)])


def _flatten(tree: Any) -> dict[str, Any]:
    """Path -> leaf, in the tree's own order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
