"""Sentence encoders from folders of sentence-transformers: a BERT or an MPNet, a mean, perhaps a scaling."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import transformers

from vla_jax.interop import weights
from vla_jax.interop.checkpoint import CheckpointError, open_checkpoint
from vla_jax.interop.json_files import read_object
from vla_jax.interop.names import is_buffer
from vla_jax.models import Parameter, sentence_encoder
from vla_jax.models.parameters import Params
from vla_jax.models.sentence_encoder import SentenceEncoderConfig
from vla_jax.parallel import make_mesh, replicated

_MODULES = "modules.json"
_UNUSED = ("pooler.", "cls.", "lm_head.")
# Of a config.json, what our encoder does and cannot do otherwise.
_FIXED = {"hidden_act": "gelu", "position_embedding_type": "absolute"}


class SentenceFolder(NamedTuple):
    """What a folder holds: the encoder, its tokenizer, and where texts are cut, in tokens."""

    config: SentenceEncoderConfig
    params: Params
    tokenizer: Any
    max_length: int


def load_sentence_encoder(folder: Path) -> SentenceFolder:
    """Reads a folder as sentence-transformers publishes them, in the precision it is stored in.

    A folder of transformers alone, without `modules.json`, is read as sentence-transformers does: a mean.

    Raises:
      CheckpointError: where weights or files are damaged, missing or of another shape.
      ValueError: where the encoder is of a kind that ours is not; names file and field.
    """
    _check_texts_are_put_as_they_are(folder)
    normalise = _normalises(folder)
    settings = read_object(folder / "config.json")
    config = _config(folder, settings, normalise)
    checkpoint = open_checkpoint(folder, rename=lambda name: name.removeprefix(f"{config.family}."))
    on_one = replicated(make_mesh(devices=jax.devices()[:1]))
    table = sentence_encoder.table(config)
    shardings = jax.tree.map(lambda _: on_one, table, is_leaf=lambda node: isinstance(node, Parameter))
    params = weights.load(table, checkpoint, shardings, ignore=_is_unused)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return SentenceFolder(config, params, tokenizer, _max_length(folder, config, tokenizer))


def _config(folder: Path, settings: dict[str, Any], normalise: bool) -> SentenceEncoderConfig:
    for field, value in _FIXED.items():
        if settings.get(field, value) != value:
            raise ValueError(
                f"{folder}/config.json: {field} is {settings[field]!r}; only {value!r} is supported"
            )
    try:
        return SentenceEncoderConfig(
            family=settings["model_type"],
            vocab_size=settings["vocab_size"],
            hidden_size=settings["hidden_size"],
            intermediate_size=settings["intermediate_size"],
            num_layers=settings["num_hidden_layers"],
            num_heads=settings["num_attention_heads"],
            max_positions=settings["max_position_embeddings"],
            type_vocab_size=settings.get("type_vocab_size", 2),
            relative_buckets=settings.get("relative_attention_num_buckets", 32),
            layer_norm_eps=settings.get("layer_norm_eps", 1e-12),
            normalise=normalise,
        )
    except KeyError as error:
        raise CheckpointError(f"{folder}/config.json: {error} is missing; copy it again") from None


def _normalises(folder: Path) -> bool:
    """Whether the folder scales embeddings to length 1; finds that it does nothing that we do not."""
    if not (folder / _MODULES).is_file():
        return False
    kinds = []
    for module in json.loads((folder / _MODULES).read_text(encoding="utf-8")):
        kind = module["type"].rpartition(".")[2]
        kinds.append(kind)
        if kind == "Pooling":
            _check_mean(folder / module["path"] / "config.json")
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"{folder / _MODULES}: the modules are {', '.join(kinds)}; only Transformer, Pooling and "
            "Normalize are supported"
        )
    return "Normalize" in kinds


def _check_texts_are_put_as_they_are(folder: Path) -> None:
    """Finds that nothing is asked to be done to a text before it is tokenized."""
    for name, field in (
        ("sentence_bert_config.json", "do_lower_case"),
        ("config_sentence_transformers.json", "default_prompt_name"),
    ):
        if (folder / name).is_file() and (value := read_object(folder / name).get(field)):
            raise ValueError(
                f"{folder / name}: {field} is {value!r}; texts are embedded as they are, which would ignore "
                "it; take another encoder"
            )


def _check_mean(file: Path) -> None:
    settings = read_object(file)
    modes = {name for name, on in settings.items() if name.startswith("pooling_mode_") and on}
    named = settings.get("pooling_mode", "mean")
    if modes - {"pooling_mode_mean_tokens"} or named not in ("mean", ["mean"], ("mean",)):
        raise ValueError(f"{file}: only the mean over tokens is supported, not {named} {sorted(modes)}")


def _max_length(folder: Path, config: SentenceEncoderConfig, tokenizer: Any) -> int:
    """Said beside the encoder until sentence-transformers 5, with the tokenizer since."""
    file = folder / "sentence_bert_config.json"
    said = read_object(file).get("max_seq_length") if file.is_file() else None
    return min(said or tokenizer.model_max_length, config.max_length)


def _is_unused(name: str) -> bool:
    return is_buffer(name) or name.endswith("position_ids") or name.startswith(_UNUSED)
