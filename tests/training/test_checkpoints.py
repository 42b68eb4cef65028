"""Checkpoints: which are kept, whose they are, and that no mesh, base or damage changes what comes back."""

import asyncio
import math
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore

from tests.virtual_devices import on_virtual_devices
from vla_jax.parallel import make_mesh, on_mesh, parameter_shardings
from vla_jax.training.checkpoints import CheckpointError, Checkpoints
from vla_jax.training.step import Trained, TrainState

OPTIMIZER = optax.adamw(1e-2)


def state_at(step, value=None):
    """A state whose numbers tell its step."""
    trained = Trained(None, {"w": jnp.full((4, 3), float(step if value is None else value))})
    return TrainState(jnp.int32(step), trained, OPTIMIZER.init(trained))


def save(folder, steps, metric=None, values=(), **settings):
    """Saves states of these steps; each has a value of the metric, or none."""
    with Checkpoints(folder, **{"keep": 2, **settings}) as checkpoints:
        for step, value in zip(steps, values or [None] * len(steps), strict=True):
            measured = None if value is None else {metric: value, "other": 0.0}
            checkpoints.save(state_at(step), {"num_tokens": 10 * step}, measured)


def restore(folder, **settings):
    with Checkpoints(folder, **{"keep": 2, **settings}) as checkpoints:
        return checkpoints.restore(state_at(0))


def kept(folder):
    return sorted(int(file.name) for file in folder.iterdir() if file.name.isdigit())


def test_the_last_few_are_kept(tmp_path):
    save(tmp_path, [1, 2, 3, 4, 5])
    assert kept(tmp_path) == [4, 5]


@pytest.mark.parametrize("greater, best", [(False, 2), (True, 1)])
def test_beside_the_last_few_the_best_by_a_metric_is_kept(tmp_path, greater, best):
    # Steps 3 and 7 are saved without an evaluation and 4 is after a bad one: they can be no best ones.
    values = [0.9, 0.2, None, math.nan, 0.5, 0.4, None]
    save(tmp_path, [1, 2, 3, 4, 5, 6, 7], "eval_loss", values, best="eval_loss", greater=greater)
    assert kept(tmp_path) == [best, 6, 7]


def test_what_is_best_is_known_after_a_restart(tmp_path):
    save(tmp_path, [1, 2, 3], "eval_loss", [0.5, 0.2, 0.4], best="eval_loss")
    save(tmp_path, [4, 5, 6], "eval_loss", [0.9, 0.3, 0.8], best="eval_loss")
    assert kept(tmp_path) == [2, 5, 6]


@pytest.mark.parametrize("greater", [False, True])
def test_the_best_may_be_chosen_by_another_metric_after_a_restart(tmp_path, greater):
    save(tmp_path, [1, 2], "eval_loss", [0.5, 0.2], best="eval_loss")
    save(tmp_path, [3, 4, 5, 6], "eval_margin", [0.3] * 4, best="eval_margin", greater=greater, keep=1)
    assert kept(tmp_path)[-1] == 6 and min(kept(tmp_path)) >= 3


def test_the_newest_state_and_its_counters_come_back_to_the_bit(tmp_path):
    assert restore(tmp_path) is None
    save(tmp_path, [3, 7])
    state, counters = restore(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(7))
    assert counters == {"num_tokens": 70}


def test_a_step_that_is_saved_is_not_saved_again(tmp_path):
    save(tmp_path, [3])
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(state_at(3, value=99), {"num_tokens": 0})
    state, counters = restore(tmp_path)
    assert float(state.trained.params["w"][0, 0]) == 3 and counters == {"num_tokens": 30}


def test_checkpoints_of_another_base_model_are_refused_and_left_alone(tmp_path):
    save(tmp_path, [1, 2], base="one")
    with pytest.raises(CheckpointError, match="holds checkpoints of another base model"):
        restore(tmp_path, base="other")
    assert kept(tmp_path) == [1, 2] and restore(tmp_path, base="one") is not None


def truncate(folder, step):
    """Halves every file in which the numbers of a checkpoint lie."""
    files = [file for file in (folder / str(step) / "state").rglob("*") if file.is_file()]
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])


def test_a_damaged_one_is_set_aside_and_the_one_before_it_is_taken(tmp_path, capsys):
    save(tmp_path, [1, 2])
    truncate(tmp_path, 2)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        state, counters = checkpoints.restore(state_at(0))
        assert (int(state.step), counters, checkpoints.latest) == (1, {"num_tokens": 10}, 1)
        # The step is computed and saved again.
        checkpoints.save(state_at(2), {"num_tokens": 20})
    assert "the checkpoint of step 2 cannot be read (" in capsys.readouterr().out
    assert (tmp_path / "2.damaged" / "state").is_dir() and kept(tmp_path) == [1, 2]
    assert restore(tmp_path)[1] == {"num_tokens": 20}


@pytest.mark.parametrize("content", [b"", b'{"eval_lo', b"\xff\xff"])
def test_a_damaged_metric_costs_no_state(tmp_path, capsys, content):
    save(tmp_path, [1, 2, 3], "eval_loss", [0.5, 0.1, 0.2], best="eval_loss")
    (tmp_path / "2" / "metrics" / "metrics").write_bytes(content)
    assert int(restore(tmp_path, best="eval_loss")[0].step) == 3
    assert "that checkpoint can no longer be the best one" in capsys.readouterr().out
    save(tmp_path, [4, 5], "eval_loss", [0.6, 0.7], best="eval_loss")
    assert kept(tmp_path) == [3, 4, 5]


def test_where_none_can_be_read_nothing_is_begun_anew(tmp_path):
    save(tmp_path, [1, 2])
    truncate(tmp_path, 1)
    truncate(tmp_path, 2)
    for _ in range(2):  # as often as it is tried: a launcher may start again by itself
        with pytest.raises(CheckpointError, match="none of the checkpoints in .* can be read; mend that"):
            restore(tmp_path)


def answer_to_a_closed_loop():
    """What a write does that ends after another one of its save has failed."""
    loop = asyncio.new_event_loop()
    loop.close()
    promise, future = tensorstore.Promise.new()
    future.add_done_callback(lambda done: loop.call_soon_threadsafe(done.result))
    promise.set_result(None)


def test_writes_that_end_after_a_save_has_failed_print_no_tracebacks(tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    with pytest.raises(OSError, match="no room"), Checkpoints(tmp_path, keep=1):
        answer_to_a_closed_loop()
        raise OSError("no room")
    answer_to_a_closed_loop()
    assert reported == []


def test_all_else_that_goes_wrong_in_the_background_is_reported(tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    with Checkpoints(tmp_path, keep=1):
        promise, future = tensorstore.Promise.new()
        future.add_done_callback(lambda done: {}["nothing"])
        promise.set_result(None)
    answer_to_a_closed_loop()
    assert reported == [KeyError, RuntimeError]


# --- what the subprocess with eight virtual devices does ---------------------------------------------

AXES = {"q": ("embed", "heads"), "mlp": ("mlp", "embed"), "norm": (None,)}


def placed_state(mesh, fill):
    """A state of random numbers, or of zeros, where a run on that mesh has it."""
    random = np.random.default_rng(0)
    shapes = {"q": (16, 8), "mlp": (8, 16), "norm": (5,)}
    params = {
        name: jnp.asarray(fill * random.normal(size=shape), jnp.float32) for name, shape in shapes.items()
    }
    trained = Trained(None, jax.device_put(params, parameter_shardings(mesh, params, AXES)))
    with jax.set_mesh(mesh):
        state = on_mesh(mesh, TrainState(jnp.int32(7 * fill), trained, OPTIMIZER.init(trained)))
        noise = jax.tree.map(lambda leaf: (leaf + fill * 0.1).astype(leaf.dtype), state.optimizer_state)
    return state.replace(optimizer_state=noise)


def saved_on_one_mesh_restored_on_others():
    """Restored on -> whether every number is the same to the bit, each leaf where that mesh has it."""
    meshes = {
        "2x2x2": make_mesh(2, 2, 2),
        "1": make_mesh(devices=jax.devices()[:1]),
        "1x8x1": make_mesh(1, 8, 1),
    }
    wanted, results = placed_state(meshes["1x8x1"], fill=1), {}
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(Path(folder), keep=1) as checkpoints:
            checkpoints.save(wanted, {"num_tokens": 1})
        for name, mesh in meshes.items():
            like = placed_state(mesh, fill=0)
            with Checkpoints(Path(folder), keep=1) as checkpoints:
                state, _ = checkpoints.restore(like)
            equal = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), state, wanted)
            there = jax.tree.map(lambda a, b: a.sharding == b.sharding, state, like)
            results[name] = [
                all(jax.tree.leaves(equal)),
                all(jax.tree.leaves(there)),
                state.trained.params["q"].addressable_shards[0].data.shape,
                state.optimizer_state[0].mu.params["q"].addressable_shards[0].data.shape,
            ]
    return results


# -----------------------------------------------------------------------------------------------------


def test_a_state_saved_on_one_mesh_is_restored_on_others_to_the_bit():
    results = on_virtual_devices("tests.training.test_checkpoints", "saved_on_one_mesh_restored_on_others")
    assert results == {
        "2x2x2": [True, True, [8, 4], [8, 4]],
        "1": [True, True, [16, 8], [16, 8]],
        "1x8x1": [True, True, [2, 8], [2, 8]],
    }
