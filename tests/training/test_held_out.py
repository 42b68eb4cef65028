"""Evaluations while training: means over all records, however they lie in batches."""

import jax
import numpy as np
import optax
import pytest

from tests.recipes.random_batches import batch_for, rows_of
from tests.small_models import tiny_model
from vla_jax.models import LoraConfig, llava, lora
from vla_jax.recipes import named
from vla_jax.training.held_out import HeldOut
from vla_jax.training.step import Method, Trained, sums_of

MODEL = tiny_model(vision={"num_layers": 1}, language={"num_layers": 1}, feature_layer=-1)


@pytest.fixture(scope="module")
def method():
    return Method(MODEL.config, named("sft"), optax.identity(), seed=0)


@pytest.fixture(scope="module")
def state(method):
    adapter = lora.initialise(llava.table(MODEL.config), LoraConfig(rank=1), jax.random.key(0))
    return method.init(Trained(jax.tree.map(lambda leaf: leaf + 0.05, adapter), {}))


def test_loss_and_metrics_are_means_over_all_records(method, state):
    # Answers of different lengths: a mean of the batches' losses would be another.
    whole = batch_for(method.recipe, 6)._replace(weights=np.array([1, 1, 1, 1, 0, 1], np.float32))
    parts = [rows_of(whole, [0, 1]), rows_of(whole, [2, 3]), rows_of(whole, [4, 5])]
    figures = HeldOut(method, MODEL.params, lambda: parts)(state)
    sums = jax.jit(sums_of, static_argnums=0)(method, state.trained, MODEL.params, whole)
    expected = sums.means()
    assert figures.keys() == {f"eval_{name}" for name in expected}
    for name, value in expected.items():
        assert figures[f"eval_{name}"] == pytest.approx(float(value), rel=1e-5)
    each = [HeldOut(method, MODEL.params, lambda part=part: [part])(state)["eval_loss"] for part in parts]
    assert abs(np.mean(each) - figures["eval_loss"]) > 1e-3


def test_no_record_is_no_figure(method, state):
    assert HeldOut(method, MODEL.params, lambda: [])(state) == {}
