"""The command that converts: what it says, and what it leaves when something is wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.forked import ROOT, run
from tests.interop.checkpoints import TINY, hugging_face_folder
from tests.small_models import tiny_model
from vla_jax.convert import export_checkpoint, import_checkpoint
from vla_jax.interop import export_model, load_model, save_model
from vla_jax.models import LoraConfig, llava, lora

CONVERT = "vla_jax.convert"


def adapted(model=TINY, origin="tiny"):
    """A model with an adapter that does something."""
    config = LoraConfig(rank=2, alpha=3.0, targets="language/.*[qv]_proj|projector/fc1")
    fresh = lora.initialise(llava.table(model.config), config, jax.random.key(0))
    drawn = jax.tree.map(lambda leaf: leaf + 0.1, fresh)
    return replace(model, adapter=drawn, lora=config, origin=origin)


@pytest.fixture
def theirs(tmp_path):
    return hugging_face_folder(tmp_path / "tiny")


@pytest.fixture
def with_adapter(tmp_path, theirs):
    """A model folder with an adapter, and the adapter as PEFT has it."""
    save_model(tmp_path / "adapted", adapted(origin=str(theirs)))
    export_checkpoint(tmp_path / "adapted", tmp_path / "peft", adapter_only=True)
    return tmp_path / "adapted", tmp_path / "peft"


def left_behind(path):
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(path))


@pytest.mark.smoke
def test_there_and_back_by_command(tmp_path, theirs):
    command = [sys.executable, "-m", CONVERT]
    done = subprocess.run(
        [*command, "import", f"--from={theirs}", f"--to={tmp_path / 'ours'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    count = sum(leaf.size for leaf in jax.tree.leaves(TINY.params))
    assert f"{count:,} parameters" in done.stdout and "peak host memory" in done.stdout
    done = run(CONVERT, "export", f"--from={tmp_path / 'ours'}", f"--to={tmp_path / 'back'}")
    assert done.returncode == 0, done.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (theirs, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, strict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Flag --from must have a value"),
        (("--from=a", "--to=b"), "say what to do"),
        (("move", "--from=a", "--to=b"), "say what to do"),
        (("import", "--from=a"), "to"),
        (("export", "--from=a", "--to=b", "--dtype=float32"), "--dtype says nothing to export"),
        (("import", "--from=a", "--to=b", "--adapter_only"), "--adapter_only says nothing to import"),
        (("import", "--from=a", "--to=b", "--dtype=int8"), "dtype"),
        (("import", "--from=nowhere", "--to=b"), "nowhere: no such folder, and no hub id"),
        (("export", "--from=nowhere", "--to=b"), "nowhere: no model here"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    done = run(CONVERT, *arguments)
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_broken_checkpoint_leaves_nothing_at_all(tmp_path, theirs):
    file = theirs / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    before = left_behind(tmp_path)
    done = run(CONVERT, "import", f"--from={theirs}", f"--to={tmp_path / 'ours'}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {file}: cannot be read")
    assert left_behind(tmp_path) == before


@pytest.mark.parametrize("direction", ["import", "export"])
def test_a_full_disk_leaves_nothing_at_all(tmp_path, theirs, direction):
    source = theirs
    if direction == "export":
        source = tmp_path / "ours"
        import_checkpoint(str(theirs), source)
    before = left_behind(tmp_path)
    # No compilation cache: its files would be the first to fail.
    environment = {"JAX_COMPILATION_CACHE_DIR": None}
    command = (direction, f"--from={source}", f"--to={tmp_path / 'out'}")
    # Writing more into one file fails, as on a full disk.
    done = run(CONVERT, *command, environment=environment, room=20 * 1024)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: no room for {tmp_path / 'out'}:")
    assert left_behind(tmp_path) == before


# A process that sends itself a signal at the call of a function.
STOPPED = """
import os
from pathlib import Path
from vla_jax.interop import safetensors_writer
owner = {{"mkdir": Path, "_header": safetensors_writer}}["{moment}"]
def stopping(*arguments, original=owner.{moment}, **options):
    done = original(*arguments, **options)
    os.kill(os.getpid(), {stop})
    return done
owner.{moment} = stopping
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["mkdir", "_header"])
def test_a_stopped_conversion_leaves_nothing_at_all(tmp_path, theirs, moment, stop):
    """As soon as its folder is made, and once the weights' file is begun."""
    before = left_behind(tmp_path)
    command = ("import", f"--from={theirs}", f"--to={tmp_path / 'new' / 'out'}")
    done = run(CONVERT, *command, before=STOPPED.format(moment=moment, stop=int(stop)))
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == f"error: stopped; nothing was left at {tmp_path / 'new' / 'out'}"
    assert left_behind(tmp_path) == before


def test_an_existing_folder_is_refused_before_anything_is_read(tmp_path, theirs):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for to in (tmp_path / "out", tmp_path / "link"):
        with pytest.raises(FileExistsError, match="exists already"):
            import_checkpoint(str(theirs), to)
        with pytest.raises(FileExistsError, match="exists already"):
            export_checkpoint(theirs, to)
    assert left_behind(tmp_path / "out") == ["precious.txt"]


def test_a_folder_that_comes_to_be_meanwhile_is_left_alone(tmp_path, theirs, monkeypatch):
    out = tmp_path / "out"

    def read(*arguments, **options):
        out.mkdir()
        (out / "precious.txt").write_text("mine")
        return TINY

    monkeypatch.setattr("vla_jax.convert.import_model", read)
    with pytest.raises(FileExistsError, match="exists already"):
        import_checkpoint(str(theirs), out)
    assert left_behind(out) == ["precious.txt"]
    shutil.rmtree(out)

    def write(folder, *arguments, **options):
        read()
        (folder / "half").write_text("done")

    monkeypatch.setattr("vla_jax.interop.hugging_face.write", write)
    save_model(tmp_path / "model", TINY)
    with pytest.raises(FileExistsError, match="has come to be meanwhile"):
        export_checkpoint(tmp_path / "model", out)
    assert left_behind(out) == ["precious.txt"]
    assert left_behind(tmp_path) == ["model", "out", "tiny"]


def test_folders_made_above_the_new_one_go_with_it(tmp_path, theirs):
    (theirs / "model.safetensors").write_bytes(b"")
    out = tmp_path / "new" / "deeper" / "out"
    with pytest.raises(ValueError, match="cannot be read"):
        import_checkpoint(str(theirs), out)
    with pytest.raises(AttributeError):
        save_model(out, replace(TINY, tokenizer=None))
    assert left_behind(tmp_path) == ["tiny"]


def test_a_hugging_face_folder_is_told_apart_from_a_model_folder(tmp_path, theirs):
    with pytest.raises(FileNotFoundError, match="import it first: python -m vla_jax.convert import"):
        export_checkpoint(theirs, tmp_path / "out")


def test_what_becomes_of_an_adapter_has_to_be_said(tmp_path, with_adapter):
    model, _ = with_adapter
    with pytest.raises(ValueError, match="say what becomes of it: --merge_adapter, --adapter_only, --base"):
        export_checkpoint(model, tmp_path / "out")
    with pytest.raises(ValueError, match="exclude each other"):
        export_checkpoint(model, tmp_path / "out", merge_adapter=True, adapter_only=True)
    save_model(tmp_path / "plain", TINY)
    for flag in ("merge_adapter", "adapter_only", "base_only"):
        with pytest.raises(ValueError, match=f"has no adapter; leave out --{flag}"):
            export_checkpoint(tmp_path / "plain", tmp_path / "out", **{flag: True})


def test_the_base_can_be_had_without_its_adapter(tmp_path, with_adapter):
    export_checkpoint(with_adapter[0], tmp_path / "base", base_only=True)
    import_checkpoint(str(tmp_path / "base"), tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "again").params, TINY.params)


def test_merging_adds_the_adapter_to_every_layer_it_adapts(tmp_path, with_adapter):
    model, _ = with_adapter
    export_checkpoint(model, tmp_path / "merged", merge_adapter=True)
    import_checkpoint(str(tmp_path / "merged"), tmp_path / "again")
    loaded = load_model(model)
    expected = lora.merge(loaded.params, loaded.adapter)
    merged = load_model(tmp_path / "again").params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, expected)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), merged, loaded.params)
    paths = [jax.tree_util.keystr(p) for p, c in jax.tree_util.tree_leaves_with_path(changed) if c]
    assert len(paths) == 3 and all("q_proj" in p or "v_proj" in p or "fc1" in p for p in paths)


def test_an_adapter_that_names_another_base_is_refused_unless_allowed(tmp_path, theirs, with_adapter):
    _, peft = with_adapter
    # Of the same last name, but there are two of them here.
    other = shutil.copytree(theirs, tmp_path / "elsewhere" / "tiny")
    with pytest.raises(ValueError, match="an adapter for another base: it names .*tiny, not .*tiny; pass"):
        import_checkpoint(str(other), tmp_path / "out", adapter=str(peft))
    import_checkpoint(str(other), tmp_path / "out", adapter=str(peft), allow_other_base=True)
    assert load_model(tmp_path / "out").adapter is not None


def test_an_adapter_finds_its_base_from_within_it_and_where_it_was_moved(
    tmp_path, theirs, with_adapter, monkeypatch
):
    _, peft = with_adapter
    monkeypatch.chdir(theirs)
    import_checkpoint(".", tmp_path / "one", adapter=str(peft))
    (tmp_path / "moved").mkdir()
    moved = theirs.rename(tmp_path / "moved" / "tiny")
    monkeypatch.chdir(tmp_path)
    import_checkpoint(str(moved), tmp_path / "two", adapter=str(peft))
    moved.rename(tmp_path / "moved" / "other")
    with pytest.raises(ValueError, match="an adapter for another base"):
        import_checkpoint(str(tmp_path / "moved" / "other"), tmp_path / "three", adapter=str(peft))


def test_an_adapter_that_fits_no_layer_of_the_base_is_refused(tmp_path, with_adapter):
    _, peft = with_adapter
    small = tiny_model(language={"hidden_size": 16, "num_heads": 2, "num_layers": 1})
    export_model(tmp_path / "small", small)
    before = left_behind(tmp_path)
    with pytest.raises(ValueError, match="is an adapter for another base") as failure:
        import_checkpoint(str(tmp_path / "small"), tmp_path / "out", adapter=str(peft), allow_other_base=True)
    assert "no such layer: language_model.model.layers.1.self_attn.q_proj.weight:A" in str(failure.value)
    assert "has shape (2, 32), not (2, 16)" in str(failure.value)
    assert left_behind(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"bias": "all"}, "bias='all' is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"peft_type": "LOHA"}, "peft_type='LOHA' is not supported; only 'LORA' is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not supported"),
        ({"alora_invocation_tokens": [9]}, "alora_invocation_tokens"),
        ({"some_new_thing": {"on": True}}, "some_new_thing"),
        ({"r": 0}, "r is 0, not the rank"),
        ({"lora_alpha": None}, "lora_alpha is None, not a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path is 5"),
    ],
    ids=str,
)
def test_an_adapter_of_another_kind_is_refused(tmp_path, theirs, with_adapter, changes, message):
    _, peft = with_adapter
    file = peft / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        import_checkpoint(str(theirs), tmp_path / "out", adapter=str(peft))


def test_lora_on_the_output_layer_is_refused_by_name(tmp_path, theirs, with_adapter):
    _, peft = with_adapter
    file = peft / "adapter_model.safetensors"
    factors = load_file(file)
    words = TINY.config.language.vocab_size
    factors["base_model.model.lm_head.lora_A.weight"] = np.zeros((2, 32), np.float32)
    factors["base_model.model.lm_head.lora_B.weight"] = np.zeros((words, 2), np.float32)
    save_file(factors, file)
    with pytest.raises(
        ValueError, match="LoRA is supported on the linear layers .* on language_model.lm_head"
    ):
        import_checkpoint(str(theirs), tmp_path / "out", adapter=str(peft))


def test_an_adapter_without_tensors_is_refused(tmp_path, theirs, with_adapter):
    _, peft = with_adapter
    save_file({}, peft / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="holds no tensor"):
        import_checkpoint(str(theirs), tmp_path / "out", adapter=str(peft))


def test_half_of_a_pair_of_factors_is_missed(tmp_path, theirs, with_adapter):
    _, peft = with_adapter
    file = peft / "adapter_model.safetensors"
    factors = load_file(file)
    gone = next(name for name in factors if "layers.1" in name and "lora_B" in name)
    factors.pop(gone)
    save_file(factors, file)
    with pytest.raises(ValueError, match=r"missing language_model\.model\.layers\.1\..*:B"):
        import_checkpoint(str(theirs), tmp_path / "out", adapter=str(peft))


def test_an_adapter_whose_base_is_not_named_asks_for_it(tmp_path, with_adapter):
    _, peft = with_adapter
    file = peft / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(ValueError, match="names no base model; give it with --from"):
        import_checkpoint(str(peft), tmp_path / "out")
