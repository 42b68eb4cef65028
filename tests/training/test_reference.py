"""The reference cache: equal to scoring online, resumable, and refused when it fits something else."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from tests.small_models import tiny_model
from vla_jax.data.reference_cache import ReferenceCache, StaleCacheError
from vla_jax.training import reference
from vla_jax.training.assembly import assemble, check_data
from vla_jax.training.configuration import check, default_config
from vla_jax.training.tracking import read_metrics

MODEL = tiny_model(vision={"image_size": 36})
COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six records with images beside them."""
    path, rows = tmp_path_factory.mktemp("data"), []
    for i in range(6):
        colour, other = list(COLOURS)[i % 3], list(COLOURS)[(i + 1) % 3]
        Image.new("RGB", (40, 30), COLOURS[colour]).save(path / f"{i}.png")
        rows.append(
            {
                "image": f"{i}.png",
                "question": "What is in the picture?",
                "chosen": f"a {colour} picture",
                "rejected": f"a {other} picture and more",
            }
        )
    (path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def configured(folder, mode="cached", recipe="mdpo", **changes):
    config = default_config()
    config.recipe = recipe
    config.data.source = "preference_folder"
    config.data.path = str(folder / "pairs.jsonl")
    config.data.max_prompt_length = 64
    config.lora.rank = 2
    config.train.steps = 2
    config.train.batch_size = 3
    config.optimizer.learning_rate = 1e-2
    config.reference.mode = mode
    config.update_from_flattened_dict(changes)
    return config


def losses(config, workdir):
    run = assemble(config, MODEL)
    run.train(workdir, "train")
    return [row["loss"] for row in read_metrics(workdir / "metrics.jsonl")]


@pytest.fixture
def scored(monkeypatch):
    """Records scored for the cache, chunk by chunk."""
    chunks, original = [], ReferenceCache.write

    def counted(self, indices, rows, values):
        chunks.append(list(indices))
        return original(self, indices, rows, values)

    monkeypatch.setattr(ReferenceCache, "write", counted)
    return chunks


def test_training_from_the_cache_equals_scoring_online_and_it_is_built_once(folder, tmp_path, scored):
    """mDPO: its random crops must be the same in the cache."""
    online = losses(configured(folder, "online"), tmp_path / "online")
    assert not scored
    cached = losses(configured(folder), tmp_path / "cached")
    assert sorted(sum(scored, [])) == list(range(6))
    np.testing.assert_allclose(cached, online, atol=1e-5)
    assert online[0] != online[-1]
    assert (folder / "pairs.jsonl.reference" / "mdpo" / "manifest.json").is_file()
    scored.clear()
    again = losses(configured(folder, **{"options.mdpo.beta": 0.1}), tmp_path / "again")
    assert again == cached and not scored
    # What does not change the reference does not make the cache stale.
    losses(
        configured(folder, **{"options.mdpo.beta": 0.5, "optimizer.learning_rate": 1e-3}), tmp_path / "beta"
    )
    assert not scored


def test_an_interrupted_build_goes_on_where_it_stopped(folder, tmp_path, scored, monkeypatch):
    config = configured(folder, **{"reference.path": str(tmp_path / "cache")})
    original = reference.collate

    def stops(rows, encoder):
        if scored:
            raise KeyboardInterrupt
        return original(rows, encoder)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(reference, "collate", stops)
        losses(config, tmp_path / "first")
    assert [len(chunk) for chunk in scored] == [3]
    done = scored.pop()
    losses(config, tmp_path / "second")
    assert len(scored) == 1 and not set(done) & set(scored[0])


def test_each_bucket_is_compiled_once_while_the_cache_is_filled(tmp_path, monkeypatch, compilations):
    """Records one by one, short and long in turns: the first of each is compiled for, and no other."""
    answers, rows = ("red", "red and green " * 8), []
    Image.new("RGB", (40, 30), COLOURS["red"]).save(tmp_path / "0.png")
    for i in range(8):
        row = {"image": "0.png", "question": f"What is {i}?", "chosen": answers[i % 2], "rejected": "blue"}
        rows.append(json.dumps(row) + "\n")
    (tmp_path / "pairs.jsonl").write_text("".join(rows))
    original, compiled = ReferenceCache.write, []

    def counted(self, *arguments):
        compiled.append(len(compilations))
        return original(self, *arguments)

    monkeypatch.setattr(ReferenceCache, "write", counted)
    changes = {"data.length_multiple": 8, "train.batch_size": 8, "train.microbatch_size": 1}
    run = assemble(configured(tmp_path, recipe="dpo", **changes), MODEL)
    method = run.method()
    run.reference(method, run.model.params)
    # One program more for the second record, and nothing at all for those that follow.
    assert compiled == [compiled[0]] + [compiled[0] + 1] * 7, compilations


def test_a_part_of_the_records_shares_its_cache_with_the_whole(folder, tmp_path, scored):
    """As an ablation of the amount of data does: nothing else is read, and nothing is scored twice."""

    def built(limit):
        scored.clear()
        config = configured(
            folder, recipe="dpo", **{"data.limit": limit, "reference.path": str(tmp_path / "cache")}
        )
        run = assemble(config, MODEL)
        run.reference(run.method(), run.model.params)
        assert run.preflight.records == len(run.preflight.prompts) == (limit or 6)
        return set(sum(scored, []))

    part, rest = built(4), built(0)
    assert len(part) == 4 and rest == set(range(6)) - part
    with pytest.raises(ValueError, match="data.limit is 7, and there are 6 records"):
        check_data(configured(folder, **{"data.limit": 7}))


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"seed": 1}, "seed, views"),
        ({"data.max_completion_length": 40}, "length"),
        ({"options.mdpo.crop_area": (0.3, 0.5)}, "views"),
    ],
)
def test_a_cache_of_something_else_is_refused_and_says_what_differs(folder, tmp_path, changes, named):
    config = configured(folder, **{"reference.path": str(tmp_path / "cache")})
    losses(config, tmp_path / "run")
    with pytest.raises(StaleCacheError, match=f"another {named}; remove the folder .* set reference.path"):
        losses(
            configured(folder, **{"reference.path": str(tmp_path / "cache"), **changes}), tmp_path / "other"
        )


def test_a_cache_of_another_model_is_refused(folder, tmp_path, monkeypatch):
    config = configured(folder, **{"reference.path": str(tmp_path / "cache")})
    losses(config, tmp_path / "run")
    params = dict(MODEL.params, newest=MODEL.params["projector"]["fc1"][:1])
    assert reference.fingerprint(MODEL.params, {}) != reference.fingerprint(params, {})
    nudged = jax.tree.map(lambda leaf: leaf, MODEL.params)
    nudged["projector"]["fc1"] = nudged["projector"]["fc1"].at[0, 0].add(1e-6)
    with pytest.raises(StaleCacheError, match="another model"):
        assemble(config, replace(MODEL, params=nudged)).train(tmp_path / "other", "train")


def test_a_record_that_changed_since_is_refused_by_its_place(folder, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    losses(configured(copy), tmp_path / "run")
    Image.new("RGB", (40, 30), (9, 9, 9)).save(copy / "4.png")
    with pytest.raises(StaleCacheError, match="record 4 has changed since"):
        losses(configured(copy), tmp_path / "other")


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_cache_is_refused_not_read_as_zeros(folder, tmp_path, damage):
    kept = tmp_path / "kept"
    losses(configured(folder, **{"reference.path": str(kept)}), tmp_path / "run")
    file = kept / "log_probs.f32"
    content = file.read_bytes()
    file.unlink()
    if damage == "short":
        file.write_bytes(content[:-4])
    with pytest.raises(StaleCacheError, match="is damaged: log_probs.f32 is missing or has not its"):
        losses(configured(folder, **{"reference.path": str(kept)}), tmp_path / "other")


def test_a_bad_record_is_skipped_in_the_cache_too(folder, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    (copy / "2.png").write_bytes(b"no image")
    changes = {"data.on_bad_record": "skip", "data.max_bad_fraction": 0.5}
    online = losses(configured(copy, "online", **changes), tmp_path / "online")
    np.testing.assert_allclose(losses(configured(copy, **changes), tmp_path / "cached"), online, atol=1e-5)


def test_povid_keeps_the_answers_it_made(folder, tmp_path):
    online = losses(configured(folder, "online", "povid"), tmp_path / "online")
    cached = losses(configured(folder, "cached", "povid"), tmp_path / "cached")
    np.testing.assert_allclose(cached, online, atol=1e-5)


def test_a_cache_where_nothing_has_a_reference_is_refused(folder):
    with pytest.raises(ValueError, match="reference.mode is set, but recipe=sft"):
        check(configured(folder, recipe="sft"))
    with pytest.raises(ValueError, match="reference.mode is 'disk'; choose one of online, cached"):
        check(configured(folder, "disk"))
    with pytest.raises(ValueError, match="reference.path is set, but reference.mode=online"):
        check(configured(folder, "online", **{"reference.path": "somewhere"}))
