"""What holds for every objective: shapes, dtypes, finite gradients at any input, exact derivatives."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jax.test_util import check_vjp
from jaxtyping import jaxtyped

from vla_jax import objectives

EXAMPLES = 6
# Every sign and size of a log-ratio that training can meet, against every other.
LARGE = np.array([1e4, -1e4, 1e4, -1e4, 0.0, 0.0])
LARGE_OTHER = np.array([-1e4, 1e4, 1e4, -1e4, 0.0, 1e4])


class Case(NamedTuple):
    """One objective under one setting.

    Attributes:
      function: of the arrays in `sizes`, all other arguments bound.
      sizes: the shape of each of its float arguments after the examples' axis.
      trained: which of them get a gradient.
      unit: its arguments lie in [0, 1].
    """

    function: Callable
    sizes: tuple[tuple[int, ...], ...] = ((), ())
    trained: tuple[int, ...] = (0, 1)
    unit: bool = False


def typed(name):
    """An objective whose annotations are checked whenever it is traced."""
    return jaxtyped(getattr(objectives, name), typechecker=beartype)


def counted(tokens):
    """A full row, a row half counted, and empty ones."""
    mask = np.zeros((EXAMPLES, tokens), bool)
    mask[0], mask[1, : tokens // 2] = True, True
    return mask


MASK, PRESENT, CHANGED = counted(4), counted(2), np.array([[True, False, True, False]] * EXAMPLES)
TOKENS = ((4,), (4,), (4,))
IMAGES = ((2, 3, 3), (3, 2, 3, 3), (2, 3, 3))


def weighted(mean):
    return lambda a: typed("weighted_log_probs")(a, jnp.array(MASK), jnp.array(CHANGED), mean=mean)


def clipped(paper_clip):
    return lambda a, b, c: typed("clipped_policy_loss")(a, b, c, jnp.array(MASK), paper_clip=paper_clip)[0]


def mixed(a, b):
    return typed("bernoulli_mixture")(jax.random.split(jax.random.key(0), EXAMPLES), a, b)


def estimated(kind):
    return lambda a, b: jnp.where(jnp.array(MASK), typed("kl_estimate")(a, b, kind), 0).sum(-1)


def estimated_advantages(a, b):
    return typed("generalized_advantages")(a, b, jnp.array(MASK), 0.9, 0.5)[0].sum(-1)


BASELINES = objectives.Baselines(correct=0.3, hallucinated=-0.3, lowest=-30.0, highest=30.0)

CASES = {
    "dpo": Case(typed("dpo")),
    "dpo, smoothed": Case(lambda a, b: typed("dpo")(a, b, 0.1)),
    "ipo": Case(lambda a, b: typed("ipo")(a, b, 0.1)),
    "hinge": Case(typed("hinge")),
    "anchor": Case(lambda a: typed("anchor")(a, 0.5), ((),), (0,)),
    "plackett_luce": Case(typed("plackett_luce"), ((5,),), (0,)),
    "plackett_luce, top-1": Case(lambda a: typed("plackett_luce")(a, 1), ((5,),), (0,)),
    "rejection_weights": Case(lambda a: typed("rejection_weights")(a)[..., 0], ((3,),), (0,)),
    "bradley_terry": Case(lambda a, b: typed("bradley_terry")(a, b, 0.5, 0.01)),
    "gamma_average": Case(typed("gamma_average")),
    "bernoulli_mixture": Case(mixed),
    "negative_log_likelihood": Case(
        lambda a: typed("negative_log_likelihood")(a, jnp.array(MASK))[0], TOKENS[:1], (0,)
    ),
    "weighted_log_probs": Case(weighted(True), TOKENS[:1], (0,)),
    "weighted_log_probs, summed": Case(weighted(False), TOKENS[:1], (0,)),
    "clipped_policy_loss": Case(clipped(False), TOKENS, (0,)),
    "clipped_policy_loss, as printed": Case(clipped(True), TOKENS, (0,)),
    "leave_one_out": Case(lambda a: typed("leave_one_out")(a)[..., 0], ((3,),), (0,)),
    "generalized_advantages": Case(estimated_advantages, TOKENS[:2]),
    "standardised": Case(lambda a: typed("standardised")(a, 0.5, 2.0), ((),), (0,)),
    "kl_estimate, k1": Case(estimated("k1"), TOKENS[:2]),
    "kl_estimate, k2": Case(estimated("k2"), TOKENS[:2]),
    "kl_estimate, k3": Case(estimated("k3"), TOKENS[:2]),
    "penalised_rewards": Case(
        lambda a, b: typed("penalised_rewards")(a, b, jnp.array(MASK), 0.1).sum(-1), ((), (4,))
    ),
    "clipped_value_loss": Case(
        lambda a, b, c: typed("clipped_value_loss")(a, b, c, jnp.array(MASK))[0], TOKENS, (0,)
    ),
    "verified_token_rewards": Case(
        lambda a, b: typed("verified_token_rewards")(a, jnp.array(MASK), b, BASELINES)[0].sum(-1), TOKENS[:2]
    ),
    "soft_iou": Case(typed("soft_iou"), ((3, 3), (3, 3)), unit=True),
    "iou_preference": Case(typed("iou_preference"), ((6,), (6,), (6,)), (0,)),
    "soft_iou_improvement": Case(
        lambda a, b, c: typed("soft_iou_improvement")(a, b, c, jnp.array(PRESENT)), IMAGES, (0,), unit=True
    ),
    "text_improvement": Case(typed("text_improvement"), ((), (6,), (3, 6), (6,)), (0,)),
}
every_objective = pytest.mark.parametrize("name", CASES)


@cache
def compiled(name):
    """Losses of all examples, and the gradients of their sum: one program for each dtype."""
    case = CASES[name]

    def total(*arrays):
        losses = case.function(*arrays)
        return jnp.sum(losses), losses

    differentiated = jax.jit(jax.grad(total, argnums=case.trained, has_aux=True))
    return lambda arrays: differentiated(*arrays)[::-1]


def extremes(name, dtype, scale=1.0):
    """Arguments with huge values of both signs along the examples and along any later axis."""
    case = CASES[name]
    arrays = []
    for index, size in enumerate(case.sizes):
        rows = (LARGE, LARGE_OTHER)[index % 2]
        values = np.resize(rows, (EXAMPLES, *size)) if size else rows
        arrays.append(jnp.array(values > 0 if case.unit else values * scale, dtype))
    return arrays


def spread(name, dtype, seed=0):
    """Arguments of ordinary size."""
    rng = np.random.default_rng(seed)
    draw = rng.uniform if CASES[name].unit else rng.normal
    return [jnp.array(draw(size=(EXAMPLES, *size)), dtype) for size in CASES[name].sizes]


def finite(*arrays):
    return all(np.isfinite(array.astype(np.float32)).all() for array in arrays)


def test_every_objective_is_examined():
    # Counts, and what depends on batch mates by intention.
    no_losses = {"clipped_tokens", "whiten", "contrastive"}
    functions = {name for name in objectives.__all__ if not isinstance(getattr(objectives, name), type)}
    assert {name.split(",")[0] for name in CASES} | no_losses == functions


@every_objective
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_gives_one_number_an_example_in_the_dtype_it_is_given(name, dtype):
    losses, _ = compiled(name)(spread(name, dtype))
    assert losses.shape == (EXAMPLES,) and losses.dtype == dtype


@every_objective
def test_an_example_depends_on_no_batch_mate(name):
    arrays = spread(name, jnp.float32)
    others = [
        array.at[1:].set(other[1:]) for array, other in zip(arrays, extremes(name, jnp.float32), strict=True)
    ]
    losses, slopes = compiled(name)(arrays)
    beside_others, other_slopes = compiled(name)(others)
    np.testing.assert_array_equal(losses[0], beside_others[0])
    for slope, other_slope in zip(slopes, other_slopes, strict=True):
        np.testing.assert_array_equal(slope[0], other_slope[0])


@every_objective
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-4], ids=["1e4", "all equal", "1"])
def test_losses_and_gradients_are_finite_at_extreme_inputs(name, dtype, scale):
    losses, slopes = compiled(name)(extremes(name, dtype, scale))
    assert finite(losses, *slopes)


@every_objective
def test_bfloat16_inputs_give_finite_losses_near_the_float32_ones(name):
    arrays = spread(name, jnp.bfloat16)
    losses, slopes = compiled(name)(arrays)
    assert finite(losses, *slopes)
    exact, _ = compiled(name)([array.astype(jnp.float32) for array in arrays])
    np.testing.assert_allclose(
        losses.astype(jnp.float32), exact, rtol=0.03, atol=0.03 * float(jnp.abs(exact).max())
    )


@every_objective
def test_gradients_are_the_finite_differences_in_float64(name):
    with jax.enable_x64(True):
        arrays = spread(name, jnp.float64, seed=3)

        def place(trained):
            places = dict(zip(CASES[name].trained, trained, strict=True))
            return [places.get(index, array) for index, array in enumerate(arrays)]

        def total(*trained):
            losses, _ = compiled(name)(place(trained))
            assert losses.dtype == jnp.float64
            return losses.sum()

        def total_and_pullback(*trained):
            losses, slopes = compiled(name)(place(trained))
            return losses.sum(), lambda scale: tuple(scale * slope for slope in slopes)

        trained = tuple(arrays[index] for index in CASES[name].trained)
        check_vjp(total, total_and_pullback, trained, atol=1e-6, rtol=1e-6)
