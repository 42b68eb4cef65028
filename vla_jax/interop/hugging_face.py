"""Whole LLaVAs from and to Hugging Face folders: weights, configuration, tokenizer, image processor."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.preprocessor_config import pixel_statistics
from vla_jax.data.tokenizer import IMAGE_TOKEN
from vla_jax.interop import peft, weights
from vla_jax.interop.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from vla_jax.interop.configs import from_hugging_face, to_hugging_face
from vla_jax.interop.folders import whole_folder
from vla_jax.interop.json_files import read_object
from vla_jax.interop.model_folder import Model
from vla_jax.interop.names import stored_name
from vla_jax.interop.safetensors_writer import MAX_FILE_BYTES, write
from vla_jax.models import LlavaConfig, llava, parameters
from vla_jax.parallel import parameter_shardings

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_CONFIG, _GENERATION = "config.json", "generation_config.json"
_PREPROCESSOR, _PROCESSOR = "preprocessor_config.json", "processor_config.json"
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
# What is handed back as it came, where the model came from a checkpoint.
_KEPT = (_CONFIG, _GENERATION, _PREPROCESSOR, _PROCESSOR, *_TEMPLATES, *_TOKENIZER)


def find(source: str) -> Path:
    """A checkpoint's folder: the one of that name, or a snapshot of the hub's repository of that name.

    Raises:
      CheckpointError: where there is neither.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{source} is a file; give the folder it lies in")
    if source.count("/") != 1 or source.startswith((".", "~", "/")):
        raise CheckpointError(f"{source}: no such folder, and no hub id (which looks like owner/name)")
    try:
        patterns = [*_WEIGHTS, *_KEPT, "adapter_config.json"]
        return Path(snapshot_download(source, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{source}: no such folder, and the hub gave nothing by that name ({reason})"
        ) from None


def import_model(
    folder: Path,
    origin: str,
    mesh: Mesh,
    dtype: DTypeLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> Model:
    """A LLaVA from a Hugging Face folder, its tensors read one by one, each straight to its shard.

    Args:
      folder: the checkpoint.
      origin: what the checkpoint is called.
      mesh: where the parameters go.
      dtype: of the parameters; None keeps them as they are stored.
      progress: called with the bytes of each tensor read.

    Raises:
      CheckpointError: where weights are damaged, missing, unexpected or mis-shaped.
      ValueError: where the configuration, the tokenizer or the image processor is not supported or missing.
    """
    theirs = _read_config(folder)
    preprocessor = _read_preprocessor(folder)
    config = from_hugging_face(theirs, *pixel_statistics(preprocessor))
    processor = ImageProcessor.from_dict(preprocessor)
    side = config.vision.image_size
    if processor.tile_size != (side, side) or bool(processor.pinpoints) != config.anyres:
        raise ValueError(
            f"{folder}: the image processor gives {processor.tile_size} pixels"
            f"{' in tiles' if processor.pinpoints else ''}, the vision tower reads {side} x {side}"
            f"{' in tiles' if config.anyres else ''}; {_PREPROCESSOR} belongs to another model"
        )
    tokenizer = _read_tokenizer(folder, config.image_token_id)
    checkpoint = open_checkpoint(folder, rename=stored_name)
    config, checkpoint = _untangled(config, checkpoint)
    table = llava.table(config)
    shardings = parameter_shardings(mesh, parameters.abstract(table), parameters.logical_axes(table))
    params = weights.load(table, checkpoint, shardings, dtype, progress=progress)
    kept = {name: (folder / name).read_bytes() for name in _KEPT if (folder / name).is_file()}
    return Model(config, params, tokenizer, processor, origin=origin, files=kept)


def _untangled(config: LlavaConfig, checkpoint: Checkpoint) -> tuple[LlavaConfig, Checkpoint]:
    """What transformers makes of tied embeddings: one matrix under either name, or two if they differ."""
    head, embedding = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    if not config.language.tie_embeddings or head not in checkpoint.shapes:
        return config, checkpoint
    if embedding not in checkpoint.shapes:
        return config, checkpoint.renamed({head: embedding})
    if np.array_equal(checkpoint.read(head), checkpoint.read(embedding)):
        return config, checkpoint.renamed({head: None})
    return replace(config, language=replace(config.language, tie_embeddings=False)), checkpoint


def export_model(
    path: Path,
    model: Model,
    max_file_bytes: int = MAX_FILE_BYTES,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Writes a folder that `from_pretrained` and `AutoProcessor` of transformers load.

    An adapter is merged in. Files of the checkpoint that the model came from are handed back as they were,
    but for the dtype in `config.json`.

    Raises:
      OSError: where the folder exists, or there is no room; nothing is left behind.
    """
    tensors = weights.tensors(llava.table(model.config), model.params, model.adapter)
    with whole_folder(path, sum(tensor.num_bytes for tensor in tensors)) as folder:
        write(folder, tensors, max_file_bytes=max_file_bytes, progress=progress)
        export_all_but_weights(folder, model)


def export_all_but_weights(folder: Path, model: Model) -> None:
    """Writes configuration, tokenizer and processor into a folder; parameters may be abstract."""
    for name, content in model.files.items():
        (folder / name).write_bytes(content)
    _write_json(folder / _CONFIG, _exported_config(model))
    if not model.files:
        model.tokenizer.save_pretrained(folder)
        _write_processor(folder, model)
        _write_json(folder / _GENERATION, _token_ids(model.tokenizer))


def export_adapter(path: Path, model: Model) -> None:
    """Writes the adapter as a folder that `PeftModel.from_pretrained` loads.

    Raises:
      ValueError: where the model has none.
      OSError: as `export_model`.
    """
    if model.adapter is None or model.lora is None:
        raise ValueError("the model has no adapter")
    with whole_folder(path) as folder:
        peft.write_adapter(folder, llava.table(model.config), model.adapter, model.lora, model.origin)


def _exported_config(model: Model) -> dict[str, Any]:
    dtypes = {np.dtype(leaf.dtype).name for leaf in jax.tree.leaves(model.params)}
    # Of several dtypes, the one that loses nothing.
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    if _CONFIG not in model.files:
        built = to_hugging_face(
            model.config, dtype=dtype, pinpoints=model.processor.pinpoints, **_token_ids(model.tokenizer)
        )
        return dict(built)
    config = json.loads(model.files[_CONFIG])
    # Releases before 4.56 read the other name.
    names = [name for name in ("dtype", "torch_dtype") if name in config] or ["torch_dtype"]
    return config | dict.fromkeys(names, dtype)


def _write_processor(folder: Path, model: Model) -> None:
    config = model.config
    _write_json(
        folder / _PREPROCESSOR, model.processor.to_dict(config.vision.pixel_mean, config.vision.pixel_std)
    )
    processor = {
        "processor_class": "LlavaNextProcessor" if config.anyres else "LlavaProcessor",
        "image_token": IMAGE_TOKEN,
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": "full" if config.keep_class_token else "default",
        "num_additional_image_tokens": int(config.vision.has_class_token),
    }
    _write_json(folder / _PROCESSOR, processor)


def _token_ids(tokenizer: Any) -> dict[str, int | None]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _read_config(folder: Path) -> Any:
    if not (folder / _CONFIG).is_file():
        raise CheckpointError(f"{folder}: no {_CONFIG} there; give the folder of a Hugging Face checkpoint")
    try:
        return transformers.AutoConfig.from_pretrained(folder)
    except Exception as error:
        # Whatever a damaged or unknown configuration makes transformers raise, it is about this file.
        raise ValueError(f"{folder / _CONFIG}: cannot be read ({str(error).splitlines()[0]})") from None


def _read_preprocessor(folder: Path) -> dict[str, Any]:
    # The order in which transformers looks.
    for name in (_PROCESSOR, _PREPROCESSOR):
        if (folder / name).is_file():
            content = read_object(folder / name)
            if name == _PREPROCESSOR or isinstance(content.get("image_processor"), dict):
                return content
    raise ValueError(f"{folder}: neither {_PREPROCESSOR} nor an image_processor in {_PROCESSOR} is there")


def _read_tokenizer(folder: Path, image_token_id: int) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise ValueError(f"{folder}: no tokenizer that can be read ({str(error).splitlines()[0]})") from None
    if (template := _chat_template(folder)) is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise ValueError(f"{folder}: no chat template, in {' or '.join(_TEMPLATES)} or with the tokenizer")
    if (found := tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)) != image_token_id:
        raise ValueError(
            f"{folder}: {IMAGE_TOKEN} is {found} to the tokenizer, {image_token_id} to the model"
        )
    return tokenizer


def _chat_template(folder: Path) -> str | None:
    """The processor's template, which goes before the tokenizer's; in the order of transformers."""
    jinja, wrapped, processor = folder / _TEMPLATES[0], folder / _TEMPLATES[1], folder / _PROCESSOR
    if processor.is_file() and isinstance(template := read_object(processor).get("chat_template"), str):
        return template
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    if wrapped.is_file() and isinstance(template := read_object(wrapped).get("chat_template"), str):
        return template
    return None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
