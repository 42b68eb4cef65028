"""The Plackett-Luce loss against its product formula, and the invariances that make it a ranking loss."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.objectives import dpo, plackett_luce, rejection_weights

rewards = st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5)


def product_formula(ranked, top=None):
    """-log of the product over places of exp(reward) / sum of exp over what is left, in float64."""
    weights = np.exp(np.asarray(ranked, np.float64))
    places = range(len(weights) if top is None else top)
    return -np.log(np.prod([weights[i] / weights[i:].sum() for i in places]))


compiled = jax.jit(plackett_luce, static_argnums=1)


def loss(ranked, top=None):
    return float(compiled(jnp.array(ranked, jnp.float32), top))


@pytest.mark.smoke
@pytest.mark.parametrize("dtype, apart", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("top", [None, 1, 2, 3])
@pytest.mark.parametrize("size", [3, 4, 5])
def test_equals_the_product_formula(size, top, dtype, apart):
    ranked = np.random.default_rng(size).normal(0, 3, (20, size))
    expected = [product_formula(row, top) for row in ranked]
    with jax.enable_x64(True):
        made = compiled(jnp.array(ranked, dtype), top)
    assert made.dtype == dtype
    np.testing.assert_allclose(made, expected, rtol=apart, atol=apart)


def test_top_one_is_the_soft_sum_of_what_the_others_are_behind():
    """AdaViP's loss as its paper writes it: log(1 + sum over the rejected of exp(r_j - r_w)), in float64."""
    ranked = np.random.default_rng(7).normal(0, 3, (20, 3))
    expected = np.log1p(np.exp(ranked[:, 1:] - ranked[:, :1]).sum(1))
    with jax.enable_x64(True):
        np.testing.assert_allclose(compiled(jnp.array(ranked), 1), expected, rtol=1e-12)


@pytest.mark.parametrize("top", [None, 1])
def test_two_candidates_make_it_dpo(top):
    ranked = jnp.array(np.random.default_rng(0).normal(0, 5, (50, 2)), jnp.float32)
    np.testing.assert_allclose(
        plackett_luce(ranked, top), dpo(ranked[:, 0], ranked[:, 1]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("equal", [0.0, -3.5])
def test_equal_rewards_cost_log_factorial_and_top_one_log_k(size, equal):
    assert loss([equal] * size) == pytest.approx(math.log(math.factorial(size)), rel=1e-6)
    assert loss([equal] * size, top=1) == pytest.approx(math.log(size), rel=1e-6)


@given(ranked=rewards, order=st.permutations(range(1, 5)))
@settings(max_examples=30, deadline=None)
def test_top_one_ignores_the_order_of_the_rest(ranked, order):
    shuffled = [ranked[0], *(ranked[place] for place in order)]
    assert loss(shuffled, top=1) == pytest.approx(loss(ranked, top=1), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("top", [None, 1])
@given(ranked=rewards, shift=st.floats(-100, 100, width=32))
@settings(max_examples=30, deadline=None)
def test_a_constant_added_to_all_rewards_changes_nothing(top, ranked, shift):
    assert loss(np.array(ranked) + shift, top) == pytest.approx(loss(ranked, top), rel=1e-4, abs=1e-4)


@given(ranked=rewards, place=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_putting_two_neighbours_in_order_never_costs_more(ranked, place):
    ordered = list(ranked)
    ordered[place : place + 2] = sorted(ranked[place : place + 2], reverse=True)
    assert loss(ordered) <= loss(ranked) + 1e-4


@given(ranked=rewards)
@settings(max_examples=30, deadline=None)
def test_no_order_costs_less_than_the_sorted_one(ranked):
    assert loss(sorted(ranked, reverse=True)) <= loss(ranked) + 1e-4


@pytest.mark.parametrize("top", [None, 1])
@pytest.mark.parametrize(
    "ranked", [[1e4, 0, -1e4], [-1e4, 0, 1e4], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4], [1e4, -1e4, 1e4]]
)
def test_extreme_rewards_have_finite_losses_and_gradients(ranked, top):
    value, slopes = jax.value_and_grad(lambda r: compiled(r, top))(jnp.array(ranked, jnp.float32))
    assert np.isfinite(value) and np.isfinite(slopes).all()
    assert float(value) >= 0


def test_a_hopeless_list_costs_its_gaps():
    # The first place loses 2e4 to the last item, the second 1e4.
    assert loss([-1e4, 0, 1e4]) == pytest.approx(3e4)


@pytest.mark.parametrize("top", [None, 1])
def test_gradients_are_the_finite_differences(top):
    ranked, step = np.random.default_rng(1).normal(0, 2, 5), 1e-5
    expected = [
        (product_formula(ranked + step * unit, top) - product_formula(ranked - step * unit, top)) / (2 * step)
        for unit in np.eye(5)
    ]
    slopes = jax.grad(lambda r: compiled(r, top))(jnp.array(ranked, jnp.float32))
    np.testing.assert_allclose(slopes, expected, atol=2e-6)


def test_leading_axes_are_examples():
    ranked = jnp.array(np.random.default_rng(2).normal(size=(2, 3, 4)), jnp.float32)
    one_by_one = [[compiled(row) for row in block] for block in ranked]
    np.testing.assert_allclose(compiled(ranked), one_by_one, rtol=1e-6)


# --- the shares of the rejected candidates ------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 5])
def test_rejected_candidates_take_their_weights_share_of_the_top_one_gradient(size):
    ranked = jnp.array(np.random.default_rng(size).normal(0, 2, (20, size)), jnp.float32)
    slopes = jax.grad(lambda r: compiled(r, 1).sum())(ranked)
    # What the rejected are pushed down by, the preferred one is pushed up by.
    shares = slopes[:, 1:] / -slopes[:, :1]
    np.testing.assert_allclose(rejection_weights(ranked[:, 1:]), shares, rtol=1e-4, atol=1e-6)


def test_two_rejected_candidates_weigh_the_sigmoids_of_their_difference():
    rewards = jnp.array([[1.5, -0.5], [0.0, 0.0]])
    sigmoids = [[1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))], [0.5, 0.5]]
    np.testing.assert_allclose(rejection_weights(rewards), sigmoids, rtol=1e-6)


@given(rejected=rewards, shift=st.floats(-100, 100, width=32))
@settings(max_examples=30, deadline=None)
def test_weights_sum_to_one_and_ignore_a_constant(rejected, shift):
    weights = rejection_weights(jnp.array(rejected, jnp.float32))
    assert float(weights.sum()) == pytest.approx(1, rel=1e-5)
    shifted = rejection_weights(jnp.array(rejected, jnp.float32) + shift)
    np.testing.assert_allclose(shifted, weights, rtol=1e-3, atol=1e-6)
