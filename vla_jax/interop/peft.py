"""LoRA adapters as PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`, in and out."""

import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from vla_jax.interop.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from vla_jax.interop.json_files import read_object
from vla_jax.interop.names import module_name, stored_name
from vla_jax.interop.safetensors_writer import Tensor, write
from vla_jax.interop.weights import stored_names
from vla_jax.models import Parameter, Table
from vla_jax.models.lora import Adapter, LoraConfig, LowRank

_STEM, _CONFIG = "adapter_model", "adapter_config.json"
_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])(\.default)?\.weight$")
# Fields of adapter_config.json that leave alone what an adapter computes, or that are read here.
_READ = {"r", "lora_alpha", "use_rslora", "base_model_name_or_path"}
_HARMLESS = {
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",  # read where use_qalora is set
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
}
# The others' values that leave it alone too. PiSSA and its like change the base's weights.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
_UNSET: tuple[Any, ...] = (None, False, [], {}, "")


def is_adapter(folder: Path) -> bool:
    """Whether a folder is one of PEFT's."""
    return (folder / _CONFIG).is_file()


def base_of(folder: Path) -> str:
    """The base model that a PEFT adapter was trained on, as its `adapter_config.json` calls it; "" if not."""
    return _config(folder).get("base_model_name_or_path") or ""


def read_adapter(folder: Path, table: Table) -> tuple[Adapter, LoraConfig]:
    """An adapter for the model of `table`.

    A layer that the adapter leaves out in some blocks of a stack gets factors of zero there.

    Args:
      folder: PEFT's folder.
      table: the base model's parameters.

    Raises:
      CheckpointError: where it is damaged, uses what is not supported, or adapts layers that the base model
        does not have or has in another shape (all are listed).
    """
    config = _config(folder)
    for name, value in config.items():
        if name not in _READ | _HARMLESS and value not in (plain := _PLAIN.get(name, _UNSET)):
            raise CheckpointError(
                f"{folder / _CONFIG}: {name}={value!r} is not supported; only {plain[0]!r} is"
            )
    rank = config["r"]
    alpha = config["lora_alpha"] * (rank**0.5 if config.get("use_rslora") else 1)
    checkpoint = open_checkpoint(folder, _STEM, _stored)
    used: set[str] = set()
    problems: list[str] = []
    adapter = _read(checkpoint, table, rank, alpha / rank, used, problems)
    left = checkpoint.shapes.keys() - used
    tensors = {name for leaf in jax.tree.leaves(table, is_leaf=_is_parameter) for name in stored_names(leaf)}
    if unfit := sorted(name for name in left if name.rpartition(":")[0] in tensors and not problems):
        raise CheckpointError(
            f"{folder}: LoRA is supported on the linear layers of blocks and of the projector; this adapter "
            f"is on {', '.join(unfit)} too"
        )
    problems += [f"no such layer: {name}" for name in left]
    if adapter is None and not problems:
        problems.append(f"{_STEM}.safetensors holds no tensor")
    if problems:
        base = config.get("base_model_name_or_path") or "another model"
        raise CheckpointError(
            f"{folder} is an adapter for another base ({base}): {'; '.join(sorted(problems))}"
        )
    paths = "|".join(_paths(adapter))
    return adapter, LoraConfig(rank=rank, alpha=alpha, targets=f"^({paths})$")


def write_adapter(folder: Path, table: Table, adapter: Adapter, lora: LoraConfig, base: str) -> None:
    """Writes PEFT's two files into an existing folder.

    Args:
      folder: where to.
      table: the base model's parameters.
      adapter, lora: the adapter.
      base: the base model's hub id or folder.
    """
    adapted = _adapted(table, adapter)
    tensors = []
    for parameter, low_rank in adapted:
        for layer, name in enumerate(stored_names(parameter)):
            at = layer if low_rank.a.ndim == 3 else None
            module = module_name(name).removesuffix(".weight")
            for letter, factor in (("A", low_rank.a), ("B", low_rank.b)):
                shape = (factor.shape[-1], factor.shape[-2])
                read = partial(_transposed, factor, at)
                key = f"base_model.model.{module}.lora_{letter}.weight"
                tensors.append(Tensor(key, shape, factor.dtype, read))
    write(folder, tensors, _STEM)
    modules = [
        re.escape(module_name(parameter.hugging_face).removesuffix(".weight")).replace(r"\{layer\}", r"\d+")
        for parameter, _ in adapted
    ]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
        # A string is matched as a whole regular expression, so that no module of the same name elsewhere is.
        "target_modules": "|".join(modules),
    }
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _config(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG
    config = read_object(file)
    rank, alpha, base = (config.get(name) for name in ("r", "lora_alpha", "base_model_name_or_path"))
    if type(rank) is not int or rank < 1:
        raise CheckpointError(f"{file}: r is {rank!r}, not the rank of a LoRA adapter")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CheckpointError(f"{file}: lora_alpha is {alpha!r}, not a number")
    if base is not None and not isinstance(base, str):
        raise CheckpointError(f"{file}: base_model_name_or_path is {base!r}, not a name")
    return config


def _stored(key: str) -> str:
    """`language_model.model.layers.0.self_attn.q_proj.weight:A`, from any release's key."""
    match = _KEY.match(key)
    if match is None:
        return key
    return f"{stored_name(match['module'] + '.weight')}:{match['factor']}"


def _read(
    checkpoint: Checkpoint, node: Any, rank: int, scale: float, used: set[str], problems: list[str]
) -> Any:
    if not isinstance(node, Parameter):
        children = {
            name: _read(checkpoint, child, rank, scale, used, problems) for name, child in node.items()
        }
        return {name: child for name, child in children.items() if child is not None} or None
    names = stored_names(node)
    if not node.is_block_linear or not any(f"{name}:A" in checkpoint.shapes for name in names):
        return None
    *layers, inputs, outputs = node.shape
    factors = {}
    for letter, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
        values = []
        for name in names:
            key = f"{name}:{letter}"
            if key not in checkpoint.shapes:
                values.append(np.zeros(shape[::-1], np.float32))
                if any(f"{name}:{other}" in checkpoint.shapes for other in "AB"):
                    problems.append(f"missing {key}")
                continue
            used.add(key)
            if checkpoint.shapes[key] != shape:
                problems.append(f"{key} has shape {checkpoint.shapes[key]}, not {shape}")
                return None
            values.append(checkpoint.read(key).T)
        stacked = np.stack(values) if layers else values[0]
        factors[letter] = jnp.asarray(stacked)
    return LowRank(factors["A"], factors["B"], scale)


def _adapted(table: Any, adapter: Any) -> list[tuple[Parameter, LowRank]]:
    if isinstance(adapter, LowRank):
        return [(table, adapter)]
    return [pair for name, child in adapter.items() for pair in _adapted(table[name], child)]


def _paths(adapter: Any, prefix: str = "") -> list[str]:
    if isinstance(adapter, LowRank):
        return [prefix]
    return [path for name, child in adapter.items() for path in _paths(child, f"{prefix}/{name}".lstrip("/"))]


def _is_parameter(node: Any) -> bool:
    return isinstance(node, Parameter)


def _transposed(factor: Array, layer: int | None) -> Shaped[np.ndarray, "_ _"]:
    return np.asarray(factor if layer is None else factor[layer]).T
