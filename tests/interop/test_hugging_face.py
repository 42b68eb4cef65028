"""Checkpoints in and out: bit for bit, one tensor at a time, and what is wrong with one is said."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.interop.checkpoints import TINY, hugging_face_folder
from vla_jax.interop import CheckpointError, export_model, find, import_model, load_model, save_model
from vla_jax.parallel import make_mesh

ONE = make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return hugging_face_folder(tmp_path_factory.mktemp("hf") / "tiny")


@pytest.fixture
def folder(original, tmp_path):
    """A copy to break."""
    return shutil.copytree(original, tmp_path / "tiny")


def read(folder, **options):
    return import_model(folder, "tiny", ONE, **options)


def tensors_of(folder):
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.smoke
@pytest.mark.parametrize("max_file_bytes", [5 * 10**9, 20_000, 1], ids=["one file", "several", "many"])
def test_a_model_comes_back_as_it_was(tmp_path, max_file_bytes):
    folder = hugging_face_folder(tmp_path / "m", max_file_bytes)
    assert (folder / "model.safetensors").is_file() == (max_file_bytes > 20_000)
    model = read(folder)
    assert_same(model.params, TINY.params)
    assert model.config == TINY.config and model.processor == TINY.processor
    assert model.origin == "tiny"


def test_the_files_hold_what_a_limit_allows_and_the_index_says_where(tmp_path):
    folder = hugging_face_folder(tmp_path / "m", 20_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for file in folder.glob("model-*.safetensors"):
        held = load_file(file)
        assert sum(value.nbytes for value in held.values()) <= 20_000 or len(held) == 1
        assert {name for name, place in index["weight_map"].items() if place == file.name} == set(held)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(TINY.params))
    assert index["metadata"]["total_size"] == total


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_import_and_export_keep_every_tensor_to_the_bit(tmp_path, original, dtype):
    half = jax.tree.map(lambda p: p.astype(dtype), TINY.params)
    first, second = tmp_path / "first", tmp_path / "second"
    export_model(first, type(TINY)(TINY.config, half, TINY.tokenizer, TINY.processor))
    save_model(tmp_path / "ours", read(first))
    export_model(second, load_model(tmp_path / "ours"))
    before, after = tensors_of(first), tensors_of(second)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, strict=True)
        assert value.dtype == dtype


def test_the_files_of_the_checkpoint_come_back_as_they_were(tmp_path, folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 1234  # nothing of ours reads it
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7], "temperature": 0.3}')
    save_model(tmp_path / "ours", read(folder))
    export_model(tmp_path / "back", load_model(tmp_path / "ours"))
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == config
    kept = "generation_config.json", "tokenizer.json", "preprocessor_config.json", "chat_template.jinja"
    for name in kept:
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes(), name


def test_another_dtype_is_written_into_the_config(tmp_path, folder):
    model = read(folder, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    export_model(tmp_path / "back", model)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "bfloat16"


OLD = {  # transformers before 4.52 | 4.52 to 4.57 | modules of today
    "hub": lambda name: name,
    "modules": lambda name: (
        name.replace("language_model.model.", "model.language_model.")
        .replace("language_model.lm_head", "lm_head")
        .replace("vision_tower.vision_model.", "model.vision_tower.")
        .replace("multi_modal", "model.multi_modal")
    ),
    "between": lambda name: (
        name.replace("language_model.model.", "model.language_model.")
        .replace("language_model.lm_head", "lm_head")
        .replace("vision_tower.", "model.vision_tower.")
        .replace("multi_modal", "model.multi_modal")
    ),
    "saved by transformers 5": lambda name: name.replace("vision_model.", ""),
}


@pytest.mark.parametrize("release", OLD)
def test_names_of_every_release_are_read(folder, release):
    file = folder / "model.safetensors"
    renamed = {OLD[release](name): value for name, value in load_file(file).items()}
    renamed["vision_tower.vision_model.embeddings.position_ids"] = np.arange(5)[None]
    renamed["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    save_file(renamed, file)
    assert_same(read(folder).params, TINY.params)


# Run in a process of its own, which sees eight devices.
SHARDED = """
import sys
from pathlib import Path
import jax, numpy as np
from tests.interop.checkpoints import TINY
from vla_jax.interop import import_model
from vla_jax.parallel import make_mesh

model = import_model(Path(sys.argv[1]), "tiny", make_mesh(data=2, fsdp=2, tensor=2))
jax.tree.map(np.testing.assert_array_equal, model.params, TINY.params)
q_proj = model.params["language"]["layers"]["q_proj"]
print(q_proj.sharding.spec, q_proj.shape, {shard.data.shape for shard in q_proj.addressable_shards})
"""


def test_each_tensor_goes_to_its_shard(original):
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(original)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "P(None, 'fsdp', 'tensor') (2, 32, 32) {(2, 16, 16)}", done.stdout


def change(folder, edit):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def test_all_tensors_that_do_not_fit_are_listed_at_once(folder):
    def edit(tensors):
        tensors.pop("language_model.model.norm.weight")
        tensors.pop("language_model.model.layers.1.mlp.up_proj.weight")
        tensors["language_model.model.layers.2.mlp.up_proj.weight"] = np.zeros(3, np.float32)
        tensors["multi_modal_projector.linear_1.weight"] = np.zeros((5, 6), np.float32)

    change(folder, edit)
    with pytest.raises(CheckpointError, match="does not fit its config.json") as failure:
        read(folder)
    for problem in (
        "missing language_model.model.norm.weight",
        "missing language_model.model.layers.1.mlp.up_proj.weight",
        "unexpected language_model.model.layers.2.mlp.up_proj.weight",
        "multi_modal_projector.linear_1.weight has shape (5, 6), not (32, 16)",
    ):
        assert problem in str(failure.value)


def test_layers_of_several_dtypes_are_refused_unless_one_is_chosen(folder):
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    change(folder, lambda tensors: tensors.update({name: tensors[name].astype(np.float16)}))
    with pytest.raises(CheckpointError, match=f"{name} is float16, the layers before it float32; choose"):
        read(folder)
    assert read(folder, dtype="float32").params["language"]["layers"]["up_proj"].dtype == jnp.float32


def test_numbers_that_would_change_are_refused(folder):
    name = "language_model.model.norm.weight"
    large = lambda tensors: tensors.update({name: np.full_like(tensors[name], 1e5)})  # noqa: E731
    change(folder, large)
    with pytest.raises(CheckpointError, match=f"{name} has numbers too large for float16"):
        read(folder, dtype="float16")
    change(folder, lambda tensors: tensors.update({name: tensors[name].astype(np.float64)}))
    with pytest.raises(CheckpointError, match=f"{name} is float64, which JAX does not keep; choose a dtype"):
        read(folder)
    assert read(folder, dtype="float32").params["language"]["norm"][0] == 1e5


@pytest.mark.parametrize("keep", [0, 4, 100, 2000, -1])
def test_a_truncated_file_is_named(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f"{file}: cannot be read .*truncated"):
        read(folder)


def test_an_index_that_names_a_missing_file(tmp_path):
    folder = hugging_face_folder(tmp_path / "m", 20_000)
    gone = sorted(folder.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(CheckpointError, match=f"index.json names files that are not there: {gone.name}"):
        read(folder)


def test_an_index_that_names_a_missing_tensor(tmp_path):
    folder = hugging_face_folder(tmp_path / "m", 20_000)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="holds ghost; it does not"):
        read(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": null}}'])
def test_an_index_that_cannot_be_read(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="no index that can be read"):
        read(folder)


def test_weights_that_only_pytorch_reads(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pytorch_model.bin, which only PyTorch reads; save it as"):
        read(folder)


def edit_json(file, **changes):
    content = json.loads(file.read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        node[last] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "clip"}, "model_type is 'clip', which is not supported; supported: llava"),
        ({"model_type": "no_such_model"}, "config.json: cannot be read"),
        ({"text_config__model_type": "gemma"}, "text_config.model_type is 'gemma'"),
        ({"text_config__hidden_act": "gelu"}, "text_config.hidden_act is 'gelu'"),
        (
            {"text_config__rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type is 'linear'",
        ),
        ({"vision_config__model_type": "vit"}, "vision_config.model_type is 'vit'"),
        ({"projector_hidden_act": "tanh"}, "activation 'tanh' is not known"),
        ({"image_token_index": 4}, "is .* to the tokenizer, 4 to the model"),
        ({"vision_config__image_size": 36}, "the image processor gives .* belongs to another model"),
    ],
)
def test_a_model_that_is_not_supported_is_named(folder, changes, message):
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ValueError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no config.json there"),
        ("preprocessor_config.json", "neither preprocessor_config.json nor"),
        ("tokenizer.json", "no tokenizer that can be read"),
    ],
)
def test_a_missing_file_is_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=message):
        read(folder)


def test_a_missing_chat_template_is_an_error(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        read(folder)


def test_templates_are_looked_for_where_transformers_looks_first(folder):
    (folder / "chat_template.json").write_text('{"chat_template": "json"}')
    jinja = (folder / "chat_template.jinja").read_text()
    assert read(folder).tokenizer.chat_template == jinja
    edit_json(folder / "processor_config.json", chat_template="processor")
    assert read(folder).tokenizer.chat_template == "processor"
    edit_json(folder / "processor_config.json", chat_template=None)
    (folder / "chat_template.jinja").unlink()
    assert read(folder).tokenizer.chat_template == "json"


@pytest.mark.parametrize("content", ["[]", "null", "{", ""])
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json", "chat_template.json"])
def test_json_that_is_no_object_is_named(folder, name, content):
    (folder / "chat_template.jinja").unlink()
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=f"{name}: (cannot be read|holds)"):
        read(folder)


def test_a_processor_config_that_holds_the_image_processor(folder):
    """As transformers 5 writes it."""
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    edit_json(folder / "processor_config.json", image_processor=preprocessor)
    assert read(folder).processor == TINY.processor


def test_of_two_image_processors_the_one_that_transformers_takes(folder):
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    inner = preprocessor | {"image_mean": [0.1, 0.2, 0.3], "do_pad": False}
    edit_json(folder / "processor_config.json", image_processor=inner)
    assert read(folder).config.vision.pixel_mean == (0.1, 0.2, 0.3)


def test_answers_end_where_the_checkpoint_says(folder):
    assert read(folder).end_ids == (TINY.tokenizer.eos_token_id,)
    (folder / "generation_config.json").unlink()
    edit_json(folder / "config.json", text_config__eos_token_id=[5, 9])
    assert read(folder).end_ids == (5, 9)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert read(folder).end_ids == (2, 7)


def test_generation_settings_that_were_not_there_are_not_made_up(tmp_path, folder):
    """PyTorch would then stop elsewhere."""
    (folder / "generation_config.json").unlink()
    export_model(tmp_path / "back", read(folder))
    assert not (tmp_path / "back" / "generation_config.json").exists()


def test_a_file_is_no_folder(folder):
    with pytest.raises(CheckpointError, match="is a file; give the folder it lies in"):
        find(str(folder / "model.safetensors"))


def test_a_hub_id_is_looked_up_in_the_hubs_cache(folder, tmp_path, monkeypatch):
    """The layout that `snapshot_download` keeps; nothing is fetched."""
    cache = tmp_path / "hub"
    snapshot = cache / "models--some--llava" / "snapshots" / "abc"
    shutil.copytree(folder, snapshot)
    (cache / "models--some--llava" / "refs").mkdir()
    (cache / "models--some--llava" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find("some/llava").resolve() == snapshot.resolve()
    with pytest.raises(CheckpointError, match="other/llava: no such folder, and the hub gave nothing"):
        find("other/llava")
    with pytest.raises(CheckpointError, match="nowhere: no such folder, and no hub id"):
        find("nowhere")


def test_an_existing_folder_is_not_overwritten(folder):
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(FileExistsError, match="exists already"):
        export_model(folder, TINY)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_too_little_room_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="no room for .*out: 0.0 GB are needed, 0.0 GB are free"):
        export_model(tmp_path / "out", TINY)
    assert os.listdir(tmp_path) == []
