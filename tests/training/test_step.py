"""A step changes what is trained and nothing else."""

import jax
import numpy as np
import optax
import pytest

from tests.small_models import tiny_model
from vla_jax.data import BatchPlan, Encoder, batches
from vla_jax.data.world import PreferenceWorld, SupervisedWorld, WorldConfig
from vla_jax.models import LoraConfig, llava, lora, parameters
from vla_jax.recipes import named
from vla_jax.training.step import Method, Trained, gradients_and_metrics, make_step


@pytest.fixture(scope="module")
def batch():
    model, recipe = tiny_model(), named("sft")
    source = SupervisedWorld(WorldConfig(), 8)
    encoder = Encoder(
        model.tokenizer, model.processor, 4, recipe.responses, max_prompt_length=24, max_completion_length=40
    )
    return next(batches(source, encoder, BatchPlan(8, 4, 0), stop=1))


def gradients_of(model, trained, base, batch):
    """What one step of plain gradient descent at rate 1 takes from each trained parameter."""
    method = Method(model.config, named("sft"), optax.sgd(1.0), seed=0)
    before = jax.tree.map(np.asarray, trained)
    state, _ = make_step(method)(method.init(Trained(None, trained)), base, batch)
    return jax.tree.map(lambda old, new: old - np.asarray(new), before, state.trained.params)


def test_the_others_gradients_are_the_same_where_some_parameters_are_frozen(batch):
    model = tiny_model()
    all_of_them = gradients_of(model, model.params, {}, batch)
    model = tiny_model()
    frozen, free = parameters.split(model.params, "^vision/")
    some = gradients_of(model, free, model.params, batch)
    assert some.keys() == {"projector", "language"}
    assert frozen.keys() == {"vision"}
    expected = {name: all_of_them[name] for name in some}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), some, expected)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(some)) > 1e-3


@pytest.mark.parametrize("microbatches", [2, 4])
@pytest.mark.parametrize("recipe, full", [("sft", True), ("lpoi", False)])
def test_a_batch_in_parts_gives_the_whole_batchs_gradients_and_metrics(recipe, full, microbatches):
    model, recipe = tiny_model(), named(recipe)
    world = SupervisedWorld if full else PreferenceWorld
    encoder = Encoder(
        model.tokenizer, model.processor, 4, recipe.responses, recipe.further_turns, max_prompt_length=24
    )
    batch = next(batches(world(WorldConfig(), 8), encoder, BatchPlan(8, 8, 0), stop=1))
    # Rows of unequal weight, one that does not count: means of means would differ.
    batch = batch._replace(weights=np.array([1, 1, 0, 1, 1, 1, 1, 1], np.float32))
    fresh = lora.initialise(llava.table(model.config), LoraConfig(rank=2), jax.random.key(0))
    # A larger step would make gradients that cancel: their rounding alone is then 5e-5 of the largest.
    adapter = jax.tree.map(lambda x: x + 0.05, fresh)
    trained, base = (Trained(None, model.params), {}) if full else (Trained(adapter, {}), model.params)
    method = Method(model.config, recipe, optax.identity(), seed=0)
    compute = jax.jit(gradients_and_metrics, static_argnums=(0, 4))
    whole = compute(method, trained, base, batch, 1)
    parts = compute(method, trained, base, batch, microbatches)

    def close(part, whole):
        # Sums in another order: float32 leaves errors of up to 3e-6 of the largest gradient here; means of
        # means would differ by a tenth of it.
        np.testing.assert_allclose(part, whole, rtol=0, atol=max(1e-8, 1e-5 * np.abs(whole).max()))

    jax.tree.map(close, parts, whole)
