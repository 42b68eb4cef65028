"""The loop, around a model of one layer: what it logs and when, what it saves, where it stops."""

import itertools
import os
import shutil
import signal
import time
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.recipes.random_batches import batch_for
from tests.small_models import tiny_model
from vla_jax.models import LoraConfig, llava, lora
from vla_jax.parallel import make_mesh
from vla_jax.recipes import named
from vla_jax.training.checkpoints import Checkpoints
from vla_jax.training.loop import Diverged, Interrupted, LoopConfig, fit
from vla_jax.training.step import Method, Trained
from vla_jax.training.tracking import Silent

ROWS = 3
MODEL = tiny_model(vision={"num_layers": 1}, language={"num_layers": 1}, feature_layer=-1)
RECIPE = named("sft")
BATCH = batch_for(RECIPE, ROWS)


def padded(response):
    """The batch, its responses padded to so many tokens."""
    more = ((0, 0), (0, 0), (0, response - BATCH.response_tokens.shape[2]))
    columns = ("response_tokens", "response_mask", "scored")
    return BATCH._replace(**{name: np.pad(getattr(BATCH, name), more) for name in columns})


# A row that weighs too much to be counted: loss and gradients come out as NaN.
OVERFLOWING = BATCH._replace(weights=np.array([1, np.inf, 1], np.float32))


@dataclass
class Heard(Silent):
    """Keeps what the loop logs, with the number of batches that it had taken by then."""

    taken: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    lines: list = field(default_factory=list)

    def log(self, step, metrics):
        self.rows.append({"step": step, **metrics, "taken": len(self.taken)})

    def log_evaluation(self, step, metrics):
        self.rows.append({"step": step, **metrics})

    def say(self, line):
        self.lines.append(line)


def fitted(folder, batches, heard=None, evaluate=lambda state: {}, at=None, **settings):
    """Trains an adapter on these batches, one a step; `at`: what else happens as a step's batch is read."""
    heard = Heard() if heard is None else heard

    def opened(start, stop):
        for step, batch in enumerate(batches[start:stop], start + 1):
            heard.taken.append(step)
            (at or {}).get(step, lambda: None)()
            yield batch

    def tracker(start):
        # The largest batch was looked at beforehand.
        heard.taken.clear()
        return heard

    adapter = lora.initialise(llava.table(MODEL.config), LoraConfig(rank=1), jax.random.key(0))
    method = Method(MODEL.config, RECIPE, optax.adam(1e-2), seed=0)
    known = {"steps": len(batches), "batch_size": ROWS, "microbatches": 1, "checkpoint_every": 100}
    return fit(
        method,
        method.init(Trained(adapter, {})),
        MODEL.params,
        opened,
        LoopConfig(**known | settings),
        mesh=make_mesh(),
        checkpoints=Checkpoints(folder / "checkpoints", keep=100),
        open_tracker=tracker,
        length_of=lambda step: batches[step].response_tokens.shape[2],
        describe=lambda step: {"described": step},
        evaluate=evaluate,
        profile_folder=folder / "profile",
    )


def saved(folder):
    return sorted(int(file.name) for file in (folder / "checkpoints").iterdir() if file.name.isdigit())


def same(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_every_step_is_logged_once_and_one_step_late(tmp_path):
    heard = Heard()
    state = fitted(tmp_path, [BATCH] * 5, heard)
    assert int(state.step) == 5
    assert [row["step"] for row in heard.rows] == [row["described"] for row in heard.rows] == [1, 2, 3, 4, 5]
    # By then the batch of the next step was taken; the last step waits for none.
    assert [row["taken"] for row in heard.rows] == [2, 3, 4, 5, 5]
    tokens = BATCH.prefix_mask.sum() + BATCH.response_mask.sum()
    assert [row["num_tokens"] for row in heard.rows] == [tokens * step for step in (1, 2, 3, 4, 5)]
    losses = [row["loss"] for row in heard.rows]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]
    assert saved(tmp_path) == [5]


def test_a_step_that_waits_for_its_batch_says_which_share_of_its_time(tmp_path):
    heard = Heard()
    fitted(tmp_path, [BATCH] * 6, heard, at={4: lambda: time.sleep(1)})
    waits = [row["data_wait"] for row in heard.rows]
    # The batch of step 4 is waited for behind step 3, and the rest of both takes far less than a second.
    assert max(waits) == waits[3] > 0.5
    assert all(0 <= wait < 0.5 for number, wait in enumerate(waits) if number not in (0, 3))


def test_every_evaluation_is_logged_and_saved_with_the_state_that_it_measured(tmp_path):
    heard, measured = Heard(), []

    def evaluate(state):
        measured.append(int(state.step))
        return {"eval_loss": float(state.step)}

    fitted(tmp_path, [BATCH] * 5, heard, evaluate, evaluate_every=2)
    assert measured == [2, 4] and saved(tmp_path) == [2, 4, 5]
    # The step itself is written before what was measured after it.
    assert [("eval_loss" in row, row["step"]) for row in heard.rows] == [
        (False, 1),
        (False, 2),
        (True, 2),
        (False, 3),
        (False, 4),
        (True, 4),
        (False, 5),
    ]


def test_a_step_that_is_skipped_leaves_parameters_and_moments_as_they_are_to_the_bit(tmp_path):
    heard, states = Heard(), []

    def evaluate(state):
        states.append(jax.device_get((state.trained, state.optimizer_state)))
        return {}

    batches = [BATCH, BATCH, OVERFLOWING, BATCH]
    state = fitted(tmp_path, batches, heard, evaluate, evaluate_every=1, skip_nonfinite=True)
    assert [same(*pair) for pair in itertools.pairwise(states)] == [False, True, False]
    logged = [row for row in heard.rows if "loss" in row]
    assert [row["skipped_steps"] for row in logged] == [0, 0, 1, 0] and int(state.step) == 4
    assert heard.lines == ["logps/chosen is nan at step 3; the step is skipped"]
    shutil.rmtree(tmp_path / "checkpoints")
    without = fitted(tmp_path, [BATCH] * 3, skip_nonfinite=True)
    assert same(state.trained, without.trained)


def test_ten_skipped_steps_in_a_row_stop_the_run_and_nine_do_not(tmp_path):
    heard = Heard()
    batches = [*[OVERFLOWING] * 9, BATCH, *[OVERFLOWING] * 10, BATCH]
    with pytest.raises(
        Diverged, match="logps/chosen is nan at step 20, the 10th step in a row that is not finite"
    ):
        fitted(tmp_path, batches, heard, skip_nonfinite=True)
    assert len(heard.lines) == 18


@pytest.mark.parametrize("bad", [3, 4])
def test_the_first_bad_metric_stops_the_run_and_the_checkpoint_before_it_stands(tmp_path, bad):
    batches = [BATCH] * 6
    batches[bad - 1] = OVERFLOWING
    with pytest.raises(
        Diverged, match=f"^logps/chosen is nan at step {bad}; the last checkpoint is step 2. Lower"
    ):
        fitted(tmp_path, batches, checkpoint_every=2)
    assert saved(tmp_path) == [2]
    heard = Heard()
    fitted(tmp_path, [BATCH] * 6, heard, checkpoint_every=2)
    assert [row["step"] for row in heard.rows] == [3, 4, 5, 6]


def test_a_gradient_that_alone_is_not_finite_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(optax.tree, "norm", lambda tree: jnp.float32(jnp.nan))
    with pytest.raises(Diverged, match="^grad_norm is nan at step 1; the last checkpoint is step None"):
        fitted(tmp_path, [BATCH] * 2)


def test_asked_to_stop_it_saves_the_step_and_goes_on_to_the_same_bits(tmp_path):
    whole = fitted(tmp_path / "whole", [BATCH] * 5)
    at = {3: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    with pytest.raises(Interrupted, match="stopped at step 3, which is saved") as stopped:
        fitted(tmp_path / "run", [BATCH] * 5, at=at)
    assert stopped.value.signal_number == signal.SIGTERM and saved(tmp_path / "run") == [3]
    heard = Heard()
    assert same(whole, fitted(tmp_path / "run", [BATCH] * 5, heard))
    assert [row["step"] for row in heard.rows] == [4, 5]
    tokens = BATCH.prefix_mask.sum() + BATCH.response_mask.sum()
    assert heard.rows[-1]["num_tokens"] == 5 * tokens


def test_asked_to_stop_at_its_last_step_it_is_done(tmp_path):
    at = {2: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    assert int(fitted(tmp_path, [BATCH] * 2, at=at).step) == 2 and saved(tmp_path) == [2]


def test_three_lengths_are_three_compilations_in_200_steps_and_none_once_all_were_met(tmp_path, compilations):
    lengths = np.random.default_rng(0).permutation(np.arange(200) % 3) * 4 + 5
    batches, so_far = [padded(length) for length in lengths], []
    at = {step: lambda: so_far.append(len(compilations)) for step in range(1, 201)}
    fitted(tmp_path, batches, at=at, checkpoint_every=50)
    assert compilations.count("jit(step)") == 3
    # The largest batch was looked at before the first step.
    so_far = so_far[-200:]
    first = max(int(np.argmax(lengths == length)) for length in (5, 9, 13)) + 1
    assert first < 20 and not compilations[so_far[first] :]
