"""CLIP and SigLIP as Hugging Face folders, both halves: for verifiers of what a model says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import transformers

from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.preprocessor_config import pixel_statistics
from vla_jax.interop import weights
from vla_jax.interop.checkpoint import CheckpointError, open_checkpoint
from vla_jax.interop.configs import vision_from_hugging_face, vision_to_hugging_face
from vla_jax.interop.folders import whole_folder
from vla_jax.interop.json_files import read_object
from vla_jax.interop.safetensors_writer import write
from vla_jax.models import clip
from vla_jax.models.clip import ClipConfig, TextTowerConfig
from vla_jax.models.parameters import Parameter, Params

_KINDS = {"clip": "CLIPModel", "siglip": "SiglipModel"}
_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"


@dataclass(frozen=True)
class Clip:
    """Two towers with what it takes to show them images and texts.

    Attributes:
      config: their shape.
      params: parameters.
      tokenizer: a transformers tokenizer that frames texts as the text tower wants them.
      processor: fits images into the vision tower.
    """

    config: ClipConfig
    params: Params
    tokenizer: Any
    processor: ImageProcessor


def load_clip(folder: Path) -> Clip:
    """Reads a folder that transformers' `CLIPModel` or `SiglipModel` wrote, or `save_clip`.

    Raises:
      CheckpointError: where there is no such folder, or its weights do not fit its configuration.
      ValueError: where the configuration is of another kind, or the tokenizer cannot be read.
    """
    if not (folder / _CONFIG).is_file():
        raise CheckpointError(f"{folder}: no {_CONFIG} there; give the folder of a CLIP or SigLIP checkpoint")
    theirs = transformers.AutoConfig.from_pretrained(folder)
    if theirs.model_type not in _KINDS:
        raise ValueError(
            f"{folder} holds a {theirs.model_type!r}; a verifier is a {' or a '.join(_KINDS)}, both halves"
        )
    preprocessor = read_object(folder / _PREPROCESSOR)
    config = ClipConfig(
        vision_from_hugging_face(theirs.vision_config, *pixel_statistics(preprocessor)),
        _text_from_hugging_face(theirs.text_config),
        theirs.projection_dim if theirs.model_type == "clip" else theirs.text_config.projection_size,
    )
    table = clip.table(config)
    nowhere = jax.tree.map(lambda _: None, table, is_leaf=lambda node: isinstance(node, Parameter))
    params = weights.load(table, open_checkpoint(folder), nowhere, np.float32)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise ValueError(f"{folder}: no tokenizer that can be read ({str(error).splitlines()[0]})") from None
    return Clip(config, params, tokenizer, ImageProcessor.from_dict(preprocessor))


def save_clip(path: Path, model: Clip) -> None:
    """Writes a folder that transformers' `from_pretrained` loads; it appears whole or not at all.

    Raises:
      FileExistsError: where there is one already.
      OSError: where there is no room.
    """
    config, tensors = model.config, weights.tensors(clip.table(model.config), model.params)
    kind = config.vision.family
    shape: dict[str, Any] = {"vision_config": vision_to_hugging_face(config.vision).to_dict()}
    shape["text_config"] = _text_to_hugging_face(config, model.tokenizer)
    if kind == "clip":
        shape["projection_dim"] = config.projection_size
    theirs = getattr(transformers, _KINDS[kind].replace("Model", "Config"))(**shape)
    with whole_folder(path, sum(tensor.num_bytes for tensor in tensors)) as folder:
        write(folder, tensors)
        content = {**theirs.to_dict(), "architectures": [_KINDS[kind]], "dtype": "float32"}
        _write_json(folder / _CONFIG, content)
        statistics = config.vision.pixel_mean, config.vision.pixel_std
        _write_json(folder / _PREPROCESSOR, model.processor.to_dict(*statistics))
        model.tokenizer.save_pretrained(folder)


def _text_from_hugging_face(config: Any) -> TextTowerConfig:
    return TextTowerConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        layer_norm_eps=config.layer_norm_eps,
        activation=config.hidden_act,
        vocab_size=config.vocab_size,
        max_positions=config.max_position_embeddings,
        end_id=config.eos_token_id,
    )


def _text_to_hugging_face(config: ClipConfig, tokenizer: Any) -> dict[str, Any]:
    text = config.text
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "layer_norm_eps": text.layer_norm_eps,
        "hidden_act": text.activation,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_positions,
        "eos_token_id": text.end_id,
        **ids,
        ("projection_size" if config.is_siglip else "projection_dim"): config.projection_size,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
