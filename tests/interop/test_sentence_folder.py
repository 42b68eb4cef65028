"""Folders of sentence-transformers: what is read of them, and which are refused."""

import json

import jax
import numpy as np
import pytest

from tests.small_models import tiny_tokenizer
from vla_jax.interop import CheckpointError, weights
from vla_jax.interop.safetensors_writer import write
from vla_jax.interop.sentence_folder import load_sentence_encoder
from vla_jax.models import parameters, sentence_encoder
from vla_jax.models.sentence_encoder import SentenceEncoderConfig

# As sentence-transformers 2 and 6 write them.
POOLINGS = [
    {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
    {"embedding_dimension": 12, "pooling_mode": "mean", "include_prompt": True},
]


def config(family):
    return SentenceEncoderConfig(
        family=family,
        vocab_size=len(tiny_tokenizer()),
        hidden_size=12,
        intermediate_size=16,
        num_layers=2,
        num_heads=2,
        max_positions=30,
        layer_norm_eps=1e-12,
    )


def save(folder, shape, params):
    """What transformers writes."""
    tensors = weights.tensors(sentence_encoder.table(shape), params)
    write(folder, tensors, "model", max_file_bytes=1_000_000)
    settings = {
        "model_type": shape.family,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "max_position_embeddings": shape.max_positions,
        "hidden_act": "gelu",
    }
    put(folder, "config.json", settings)
    tiny_tokenizer().save_pretrained(folder)


def put(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def modules(*kinds):
    return [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]


@pytest.fixture(params=["bert", "mpnet"])
def saved(request, tmp_path):
    shape = config(request.param)
    params = parameters.initialise(sentence_encoder.table(shape), jax.random.key(0))
    save(tmp_path, shape, params)
    put(tmp_path, "modules.json", modules("models.Transformer", "models.Pooling", "models.Normalize"))
    put(tmp_path, "1_models.Pooling/config.json", POOLINGS[0])
    put(tmp_path, "sentence_bert_config.json", {"max_seq_length": 18, "do_lower_case": False})
    return tmp_path, shape, params


def test_a_folder_is_read_as_it_was_written(saved):
    folder, shape, params = saved
    for pooling in POOLINGS:
        put(folder, "1_models.Pooling/config.json", pooling)
        found = load_sentence_encoder(folder)
        assert found.config == shape and found.max_length == 18
        jax.tree.map(np.testing.assert_array_equal, found.params, params)
        assert found.tokenizer("a red cube")["input_ids"] == tiny_tokenizer()("a red cube")["input_ids"]


def test_what_normalises_not_and_says_no_length_is_taken_at_its_word(saved):
    folder, shape, _ = saved
    (folder / "sentence_bert_config.json").unlink()
    put(folder, "modules.json", modules("models.Transformer", "models.Pooling"))
    found = load_sentence_encoder(folder)
    assert not found.config.normalise and found.max_length == shape.max_length
    # Without the file, sentence-transformers takes the mean.
    (folder / "modules.json").unlink()
    assert not load_sentence_encoder(folder).config.normalise


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1_models.Pooling/config.json", {"pooling_mode_cls_token": True}, "only the mean over tokens"),
        ("1_models.Pooling/config.json", {"pooling_mode": "lasttoken"}, "only the mean over tokens"),
        ("modules.json", modules("Transformer", "Dense"), "the modules are Transformer, Dense"),
        ("config.json", {"model_type": "bert", "hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("config.json", {"model_type": "bert"}, "'vocab_size' is missing"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is True"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query"},
            "default_prompt_name is 'query'",
        ),
    ],
)
def test_what_our_encoder_does_not_do_is_named(name, content, message, tmp_path):
    put(tmp_path, "config.json", {"model_type": "bert"})
    put(tmp_path, "modules.json", modules("models.Transformer", "models.Pooling"))
    put(tmp_path, "1_models.Pooling/config.json", POOLINGS[0])
    put(tmp_path, name, content)
    with pytest.raises(ValueError, match=message):
        load_sentence_encoder(tmp_path)


def test_a_folder_without_weights_is_named(saved):
    folder, _, _ = saved
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        load_sentence_encoder(folder)
