"""A model folder: what was saved is what is loaded, to the bit, or a message that says what is wrong."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.small_models import tiny_model
from vla_jax.data import Encoder
from vla_jax.interop import load_model, save_model
from vla_jax.models import LoraConfig, llava, lora
from vla_jax.rollout import Answerer

PLAIN = tiny_model()
QUESTION = "What is in the picture?"


def adapted():
    """The model with an adapter that has been trained somewhere."""
    config = LoraConfig(rank=2, alpha=3.0, targets="language/.*[qv]_proj|projector/fc1")
    fresh = lora.initialise(llava.table(PLAIN.config), config, jax.random.key(0))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), fresh)
    return replace(PLAIN, adapter=drawn, lora=config)


ADAPTED = adapted()


def assert_same(ours, theirs):
    """Equal trees: the same structure, and every leaf to the bit."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def answer(model):
    config = model.config
    encoder = Encoder(model.tokenizer, model.processor, config.num_image_tokens, (), max_prompt_length=32)
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    asked = Answerer(config, model.params, model.adapter, encoder, model.end_ids, batch_size=1)
    return asked.answer([image], [QUESTION], max_new_tokens=5)


@pytest.fixture
def folder(tmp_path):
    """A saved model with an adapter."""
    save_model(tmp_path / "m", ADAPTED)
    return tmp_path / "m"


@pytest.mark.smoke
@pytest.mark.parametrize("model", [PLAIN, ADAPTED], ids=["plain", "adapted"])
def test_round_trip_to_the_bit(tmp_path, model):
    save_model(tmp_path / "m", model)
    loaded = load_model(tmp_path / "m")
    assert_same(loaded.params, model.params)
    assert_same(loaded.adapter, model.adapter)
    assert (loaded.config, loaded.lora) == (model.config, model.lora)


def test_the_loaded_tokenizer_reads_and_writes_as_the_saved_one(folder):
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    texts = [
        tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        for tokenizer in (load_model(folder).tokenizer, PLAIN.tokenizer)
    ]
    assert texts[0] == texts[1]
    ids = PLAIN.tokenizer(texts[0])["input_ids"]
    assert load_model(folder).tokenizer(texts[0])["input_ids"] == ids
    assert load_model(folder).tokenizer.decode(ids) == texts[0]


def test_the_loaded_model_gives_the_same_answers(folder):
    assert answer(load_model(folder)) == answer(ADAPTED)


def test_half_precision_comes_back_as_half_precision(tmp_path):
    half = replace(PLAIN, params=jax.tree.map(lambda p: p.astype(jnp.bfloat16), PLAIN.params))
    save_model(tmp_path / "m", half)
    assert_same(load_model(tmp_path / "m").params, half.params)


def test_a_working_directory_stands_for_the_model_in_it(tmp_path):
    save_model(tmp_path / "run" / "model", PLAIN)
    assert_same(load_model(tmp_path / "run").params, PLAIN.params)


def test_saving_replaces_the_model_that_was_there(folder):
    save_model(folder, PLAIN)
    assert load_model(folder).adapter is None
    assert not (folder / "adapter.safetensors").exists()


def test_a_failed_save_leaves_nothing_behind(tmp_path):
    with pytest.raises(AttributeError):
        save_model(tmp_path / "m", replace(PLAIN, tokenizer=None))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_former_model_alone(folder):
    with pytest.raises(AttributeError):
        save_model(folder, replace(PLAIN, tokenizer=None))
    assert [path.name for path in folder.parent.iterdir()] == ["m"]
    assert_same(load_model(folder).adapter, ADAPTED.adapter)


@pytest.mark.parametrize("part", [{"adapter": None}, {"lora": None}], ids=str)
def test_an_adapter_and_its_configuration_are_saved_together(tmp_path, part):
    with pytest.raises(ValueError, match="give both or neither"):
        save_model(tmp_path / "m", replace(ADAPTED, **part))


def test_a_folder_without_a_model_is_not_found(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"{path}: no model here"):
            load_model(path)


@pytest.mark.parametrize("name", ["params.safetensors", "adapter.safetensors", "model.json"])
def test_a_truncated_file_is_named(folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{file}: cannot be read"):
        load_model(folder)


@pytest.mark.parametrize("name", ["params.safetensors", "adapter.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{folder / name}: cannot be read"):
        load_model(folder)


def test_a_model_json_of_another_version_is_named(folder):
    shape = json.loads((folder / "model.json").read_text())
    shape["config"]["language"]["num_experts"] = 8
    (folder / "model.json").write_text(json.dumps(shape))
    with pytest.raises(ValueError, match=r"model.json: cannot be read .*num_experts"):
        load_model(folder)


def change(file, edit):
    """Rewrites a safetensors file."""
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda t: t.update({"projector/fc1": np.zeros((16, 31), np.float32)}),
            r"projector/fc1 has shape \(16, 31\), not \(16, 32\)",
        ),
        (lambda t: t.pop("language/norm"), "missing language/norm"),
        (lambda t: t.update({"language/extra": np.zeros(2, np.float32)}), "unexpected language/extra"),
    ],
    ids=["mis-shaped", "missing", "unexpected"],
)
def test_a_tensor_that_does_not_fit_is_named(folder, edit, message):
    change(folder / "params.safetensors", edit)
    with pytest.raises(ValueError, match=f"params.safetensors does not fit its model.json: {message}"):
        load_model(folder)


def test_every_tensor_that_does_not_fit_is_named_at_once(folder):
    change(folder / "params.safetensors", lambda t: (t.pop("language/norm"), t.pop("projector/fc1_bias")))
    with pytest.raises(ValueError, match="missing language/norm; missing projector/fc1_bias"):
        load_model(folder)


def test_an_adapter_of_another_rank_does_not_fit(folder):
    shape = json.loads((folder / "model.json").read_text())
    shape["lora"]["rank"] = 5
    (folder / "model.json").write_text(json.dumps(shape))
    with pytest.raises(
        ValueError, match=r"adapter.safetensors does not fit .*q_proj/a has shape \(2, 32, 2\)"
    ):
        load_model(folder)
