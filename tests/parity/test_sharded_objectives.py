"""Every objective and every recipe on a batch spread over eight devices is what it is on one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.recipes.random_batches import batch_for
from tests.small_models import tiny_model
from tests.virtual_devices import DEVICES, on_virtual_devices
from vla_jax import objectives
from vla_jax.models import llava, lora, parameters
from vla_jax.models.compute import Compute
from vla_jax.models.lora import LoraConfig
from vla_jax.models.target import Target
from vla_jax.parallel import batch_sharding, make_mesh, parameter_shardings
from vla_jax.recipes import available, named
from vla_jax.training.step import Method, Trained, gradients_and_metrics

ROWS, TOKENS = 2 * DEVICES, 7
MESH = {"data": 4, "fsdp": 2}
# Every recipe with an adapter, and one of each kind of reference with all parameters: `image_words` runs no
# language model, which is where adapters are.
FULL = ("image_words", "lpoi", "sft")
RECIPES = (
    *((name, "lora") for name in available() if name != "image_words"),
    *((name, "full") for name in FULL),
)


BASELINES = objectives.Baselines(correct=0.4, hallucinated=-0.4, lowest=-3.0, highest=3.0)


def drawn(random, *shape):
    return random.normal(size=(ROWS, *shape)).astype(np.float32)


def cases():
    """Objective -> (function, what of its arguments is differentiated, what is not); arrays by rows."""
    random = np.random.default_rng(0)
    mask = np.arange(TOKENS) < random.integers(1, TOKENS + 1, (ROWS, 1))
    changed = mask & (random.integers(0, 2, mask.shape) > 0)
    pair = (drawn(random), drawn(random))
    tokens, sampled, worth = (drawn(random, TOKENS) for _ in range(3))
    soft = (1 / (1 + np.exp(-drawn(random, 2, 6, 6))), 1 / (1 + np.exp(-drawn(random, 3, 2, 6, 6))))
    target, present = random.integers(0, 2, (ROWS, 2, 6, 6)) > 0, random.integers(0, 2, (ROWS, 2)) > 0
    embeddings = tuple(drawn(random, 5) for _ in range(3))
    texts = (drawn(random, 5), drawn(random, 3, 5), drawn(random, 5))
    keys = np.arange(ROWS, dtype=np.uint32)
    listed = (drawn(random, 5),)
    return {
        "dpo": (lambda a, b: objectives.dpo(a, b, 0.1), pair, ()),
        "ipo": (lambda a, b: objectives.ipo(a, b, 0.1), pair, ()),
        "hinge": (objectives.hinge, pair, ()),
        "anchor": (lambda a: objectives.anchor(a, 0.3), pair[:1], ()),
        "plackett_luce": (objectives.plackett_luce, listed, ()),
        "plackett_luce top 1": (lambda ranked: objectives.plackett_luce(ranked, top=1), listed, ()),
        "rejection_weights": (lambda a: jnp.sum(objectives.rejection_weights(a) * a, axis=-1), listed, ()),
        "bradley_terry": (lambda a, b: objectives.bradley_terry(a, b, 0.2, 0.01), pair, ()),
        "gamma_average": (lambda a, b: objectives.gamma_average(a, b, 0.2), pair, ()),
        "bernoulli_mixture": (
            lambda a, b, ids: objectives.bernoulli_mixture(
                jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(ids), a, b, 0.5
            ),
            pair,
            (keys,),
        ),
        "negative_log_likelihood": (objectives.negative_log_likelihood, (tokens,), (mask,)),
        "weighted_log_probs": (objectives.weighted_log_probs, (tokens,), (mask, changed)),
        "clipped_policy_loss": (
            objectives.clipped_policy_loss,
            (0.3 * tokens,),
            (0.3 * sampled, worth, mask),
        ),
        "clipped_policy_loss, as printed": (
            lambda *a: objectives.clipped_policy_loss(*a, paper_clip=True),
            (0.3 * tokens,),
            (0.3 * sampled, worth, mask),
        ),
        "clipped_value_loss": (objectives.clipped_value_loss, (tokens,), (sampled, worth, mask)),
        "generalized_advantages": (
            lambda a, b, mask: jnp.sum(
                objectives.generalized_advantages(a, b, mask, 0.9, 0.5)[0] * a, axis=-1
            ),
            (tokens, sampled),
            (mask,),
        ),
        "kl_estimate": (
            lambda a, b: jnp.sum(objectives.kl_estimate(a, b, "k3"), axis=-1),
            (tokens, sampled),
            (),
        ),
        "leave_one_out": (lambda a: jnp.sum(objectives.leave_one_out(a) * a, axis=-1), listed, ()),
        "penalised_rewards": (
            lambda a, b, mask: jnp.sum(jnp.square(objectives.penalised_rewards(a, b, mask, 0.1)), axis=-1),
            (pair[0], tokens),
            (mask,),
        ),
        "standardised": (lambda a: jnp.square(objectives.standardised(a, 0.5, 2.0)), pair[:1], ()),
        "whiten": (lambda a, mask: jnp.sum(objectives.whiten(a, mask) * worth, axis=-1), (tokens,), (mask,)),
        "contrastive": (objectives.contrastive, (drawn(random, ROWS),), ()),
        "verified_token_rewards": (
            lambda a, scores, named, apart: jnp.sum(
                objectives.verified_token_rewards(scores, named, apart, BASELINES, margin=0.1)[0] * a, axis=-1
            ),
            (tokens,),
            (sampled, mask, jnp.abs(worth)),
        ),
        "soft_iou": (objectives.soft_iou, (soft[0][:, 0],), (target[:, 0],)),
        "iou_preference": (objectives.iou_preference, embeddings, ()),
        "soft_iou_improvement": (objectives.soft_iou_improvement, soft, (target, present)),
        "text_improvement": (objectives.text_improvement, pair[:1], texts),
    }


def mean_of(function):
    """The batch's loss as a step makes it: one sum over one denominator."""

    def loss(varied, fixed):
        value = function(*varied, *fixed)
        total, count = value if isinstance(value, tuple) else (value, jnp.ones(len(value)))
        return jnp.sum(total) / jnp.sum(count)

    return loss


def largest_difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    # NumPy's maximum, unlike Python's, is NaN where one is.
    return float(np.max([np.max(np.abs(np.asarray(a) - np.asarray(b))) for a, b in pairs]))


def largest(tree):
    return float(np.max([np.max(np.abs(np.asarray(leaf))) for leaf in jax.tree.leaves(tree)]))


def objectives_apart():
    """Objective -> [how far value and gradient on eight devices are from those on one, largest gradient].

    Relative to the loss where that is above 1.
    """
    mesh, apart = make_mesh(**MESH), {}
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    for name, (function, varied, fixed) in cases().items():
        program = jax.jit(jax.value_and_grad(mean_of(function)))
        single = program(*jax.device_put((varied, fixed), jax.devices()[0]))
        spread = jax.device_put((varied, fixed), rows)
        assert all(len(leaf.addressable_shards) == DEVICES for leaf in jax.tree.leaves(spread))
        size = max(1.0, abs(float(single[0])))
        apart[name] = [largest_difference(program(*spread), single) / size, largest(single[1])]
    return apart


def recipes_apart():
    """Recipe and what is trained -> how far metrics are apart, how far gradients, and the largest gradient.

    Metrics relative to the largest where that is above 1, gradients relative to the largest.
    """
    single, mesh, apart = make_mesh(1, 1, 1, devices=jax.devices()[:1]), make_mesh(**MESH), {}
    for name, kind in RECIPES:
        gradients, metrics = outcome(named(name), kind, single, Compute())
        target = Target("cpu", rows=("data", "fsdp"), heads="tensor")
        spread, spread_metrics = outcome(named(name), kind, mesh, Compute(target=target))
        scale = largest(gradients)
        apart[f"{name} {kind}"] = [
            largest_difference(spread_metrics, metrics) / max(1.0, largest(metrics)),
            largest_difference(spread, gradients) / scale,
            scale,
        ]
    return apart


def outcome(recipe, kind, mesh, compute):
    """Gradients and metrics of one batch, one row of which was filled up and has weight 0."""
    model = tiny_model(reward_head=recipe.sequences, value_head=recipe.values)
    table, everywhere = llava.table(model.config), NamedSharding(mesh, PartitionSpec())
    placement = parameter_shardings(mesh, model.params, parameters.logical_axes(table))
    if kind == "full":
        moved = jax.tree.map(lambda leaf: leaf + 0.01, model.params)
        trained = Trained(None, jax.device_put(moved, placement))
    else:
        adapter = lora.initialise(table, LoraConfig(rank=2, alpha=2.0), jax.random.key(1))
        moved = jax.tree.map(lambda leaf: leaf + 0.05, adapter)
        heads = {name: model.params[name] for name in ("value",) if name in model.params}
        trained = Trained(*jax.device_put((moved, heads), everywhere))
    batch = batch_for(recipe, ROWS)
    batch = batch._replace(weights=np.where(np.arange(ROWS) == 5, 0, batch.weights))
    method = Method(model.config, recipe, optax.identity(), 0, compute)
    with jax.set_mesh(mesh):
        return jax.jit(lambda *arguments: gradients_and_metrics(method, *arguments, step=3))(
            trained, jax.device_put(model.params, placement), jax.device_put(batch, batch_sharding(mesh))
        )


# --- specifications ----------------------------------------------------------------------------------

OBJECTIVES = tuple(cases())


@pytest.fixture(scope="module")
def of_objectives():
    return on_virtual_devices("tests.parity.test_sharded_objectives", "objectives_apart")


@pytest.fixture(scope="module")
def of_recipes():
    return on_virtual_devices("tests.parity.test_sharded_objectives", "recipes_apart")


def test_no_objective_is_left_out():
    functions = {name for name in objectives.__all__ if not isinstance(getattr(objectives, name), type)}
    counted = {"clipped_tokens"}  # a metric
    assert functions - counted == {name.split(" top")[0].split(",")[0] for name in OBJECTIVES}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_on_eight_devices_is_that_on_one(of_objectives, name):
    apart, gradient = of_objectives[name]
    assert gradient > 1e-4
    assert apart < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", RECIPES)
def test_a_recipes_loss_metrics_and_gradients_on_eight_devices_are_those_on_one(of_recipes, name, kind):
    metrics, gradients, scale = of_recipes[f"{name} {kind}"]
    assert scale > 1e-4
    assert metrics < 1e-6
    # Sums of float32 in another order, through every layer of a model.
    assert gradients < 5e-6
