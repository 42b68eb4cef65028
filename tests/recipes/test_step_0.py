"""Where every recipe begins: policy and reference agree; and what must not change its loss."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.recipes.random_batches import CONFIG, batch_for, learns_from_rewards, rows_of
from tests.small_models import tiny_model
from vla_jax.data.batches import Kept
from vla_jax.models import llava, lora
from vla_jax.models.lora import LoraConfig
from vla_jax.recipes import available, named
from vla_jax.training.step import Method, Trained, sums_of

LN_2 = math.log(2)
# (recipe, options) -> the loss where policy and reference agree (METHODS: the papers' formulas at 0).
STEP_0 = {
    "adavip": [
        ({}, math.log(3)),
        ({"weighting": "equal"}, 2 * LN_2),
        ({"weighting": "text"}, LN_2),
        ({"weighting": "vision"}, LN_2),
    ],
    "bdhs": [({}, LN_2), ({"data_pair": False}, LN_2)],
    "best_of_n": [({}, LN_2)],
    "dpo": [({}, LN_2), ({"label_smoothing": 0.2}, LN_2)],
    "ipo": [({}, 25.0), ({"beta": 0.5}, 1.0), ({"length_normalize": False}, 25.0)],
    "lpoi": [({"num_views": views}, 2 * LN_2 + math.log(math.factorial(views))) for views in (5, 3, 4)],
    "mdpo": [({}, 3 * LN_2)],
    "mixed_dpo": [({}, LN_2)],
    "online_dpo": [({}, LN_2)],
    "povid": [({}, LN_2), ({"gamma": 0.2}, LN_2)],
    "rlhfv": [({}, LN_2), ({"length_normalize": False}, LN_2)],
    "slic": [({}, 1.0)],
}
# Where the reference's log-probabilities come from.
ADAPTER_OFF, FROZEN_COPY, CACHED = "adapter off", "frozen copy", "cached"
CASES = [
    pytest.param(name, options, loss, mode, id=f"{name}-{options}-{mode}")
    for name, cases in STEP_0.items()
    for i, (options, loss) in enumerate(cases)
    for mode in (ADAPTER_OFF, FROZEN_COPY, CACHED)[: 3 if i == 0 else 1]
]
BASE = tiny_model().params
COPY = jax.tree.map(jnp.copy, BASE)
HEAD = {
    "reward": {"score": jnp.linspace(-1, 1, CONFIG.language.hidden_size)},
    "value": {"score": jnp.linspace(-1, 1, CONFIG.language.hidden_size), "bias": jnp.ones(1)},
}
ADAPTER = lora.initialise(llava.table(CONFIG), LoraConfig(rank=2, alpha=2.0), jax.random.key(1))
TRAINED_ADAPTER = jax.tree.map(lambda x: x + 0.05, ADAPTER)


def method(name, options=None, *, seed=0):
    return Method(CONFIG, named(name, options), optax.identity(), seed)


def with_reference(method, batch):
    """The batch as it comes with a reference cache: scored by a program of its own."""
    made = jax.jit(method.reference_scores)(BASE, batch)
    return batch._replace(reference=Kept(*map(np.asarray, made)))


def evaluated(method, trained, batch):
    """The loss, and all metrics with it."""
    means = jax.jit(lambda *arguments: sums_of(method, *arguments).means())(trained, BASE, batch)
    return means["loss"], means


def test_every_preference_recipe_has_its_value_at_step_0_here():
    methods = {name: named(name) for name in available()}
    preferring = {name for name, recipe in methods.items() if not learns_from_rewards(recipe)}
    assert set(STEP_0) == {name for name in preferring if methods[name].needs_reference}


@pytest.mark.parametrize("name, options, expected, mode", CASES)
def test_the_loss_at_step_0_is_the_closed_form_and_margins_are_0(name, options, expected, mode):
    chosen = method(name, options)
    batch = batch_for(chosen.recipe)
    if mode == CACHED:
        batch = with_reference(chosen, batch)
    trained = Trained(None, COPY) if mode == FROZEN_COPY else Trained(ADAPTER, {})
    loss, metrics = evaluated(chosen, trained, batch)
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    rewards = {key: float(value) for key, value in metrics.items() if key.startswith("rewards/")}
    assert "rewards/margins" in rewards
    if mode == CACHED:
        # Another program, which may round otherwise.
        assert all(abs(value) < 1e-6 for key, value in rewards.items() if "accuracies" not in key), rewards
    else:
        assert not any(rewards.values()), rewards


@pytest.mark.parametrize("name", ["mdpo", "povid", "lpoi"])
def test_a_kept_reference_gives_the_losses_and_gradients_of_the_online_one(name):
    """Random crops and noise are the same whenever a record comes up."""
    chosen = method(name, seed=3)
    batch = batch_for(chosen.recipe)

    @jax.jit
    def run(trained, batch):
        return jax.value_and_grad(lambda trained: sums_of(chosen, trained, BASE, batch).losses)(trained)

    online, slopes = run(Trained(TRAINED_ADAPTER, {}), batch)
    cached, cached_slopes = run(Trained(TRAINED_ADAPTER, {}), with_reference(chosen, batch))
    assert float(cached) == pytest.approx(float(online), rel=1e-5)
    for ours, theirs in zip(jax.tree.leaves(cached_slopes), jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(jnp.abs(theirs).max()))


# --- rows that do not count --------------------------------------------------------------------------


def blank(batch, rows):
    """The batch with some records replaced by what stands in for a bad one."""
    emptied = jax.tree.map(np.copy, batch)
    for column in jax.tree.leaves(emptied):
        column[rows] = 0
    emptied.prefix_mask[rows, -1] = True
    return emptied


@pytest.mark.parametrize("name", available())
def test_a_row_of_weight_0_changes_neither_loss_nor_gradient(name):
    chosen = method(name)
    trained = (
        Trained(TRAINED_ADAPTER, HEAD) if named(name).needs_reference else Trained(None, {**BASE, **HEAD})
    )
    batch = batch_for(chosen.recipe)

    def step(batch):
        return compiled(trained, BASE, batch)

    def loss_and_metrics(*arguments):
        means = sums_of(chosen, *arguments).means()
        return means["loss"], means

    # Parameters are arguments: closed over, they would be constants, which XLA folds for seconds.
    compiled = jax.jit(jax.value_and_grad(loss_and_metrics, has_aux=True))
    # Records 0 and 2 alone, each twice: their mean, in the shape of four rows.
    (without, without_metrics), without_slopes = step(rows_of(batch, [0, 2, 0, 2]))
    assert any(leaf.any() for leaf in jax.tree.leaves(without_slopes))
    four = rows_of(batch, [0, 1, 2, 1])
    unweighted = four._replace(weights=np.array([1, 0, 1, 0], np.float32))
    for candidate in (blank(four, [1, 3]), unweighted):
        (loss, metrics), slopes = step(candidate)
        assert float(loss) == pytest.approx(float(without), rel=1e-5)
        assert metrics.keys() == without_metrics.keys()
        for key, value in metrics.items():
            assert float(value) == pytest.approx(float(without_metrics[key]), rel=1e-4, abs=1e-5), key
        for ours, theirs in zip(jax.tree.leaves(slopes), jax.tree.leaves(without_slopes), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)
    # Without a usable row there is nothing to pay and nothing to learn.
    (loss, _), slopes = step(blank(four, [0, 1, 2, 3]))
    assert float(loss) == 0 and not any(leaf.any() for leaf in jax.tree.leaves(slopes))
