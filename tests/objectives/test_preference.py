"""Losses on pairs: their closed forms, their values at equal rewards, their gradients, their tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.objectives import anchor, dpo, hinge, ipo

REWARDS = np.linspace(-8, 8, 17)
PREFERRED, OTHER = (side.ravel() for side in np.meshgrid(REWARDS, REWARDS))
reward = st.floats(-50, 50, width=32)


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


@pytest.mark.smoke
def test_a_pair_costs_the_negative_log_sigmoid_of_its_margin():
    np.testing.assert_allclose(dpo(PREFERRED, OTHER), -log_sigmoid(PREFERRED - OTHER), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_mixes_in_the_loss_of_the_reversed_pair(smoothing):
    margin = PREFERRED - OTHER
    expected = -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin)
    np.testing.assert_allclose(dpo(PREFERRED, OTHER, smoothing), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@given(equal=reward)
@settings(max_examples=20, deadline=None)
def test_equal_rewards_cost_ln_2_whatever_the_smoothing(smoothing, equal):
    assert float(dpo(jnp.float32(equal), jnp.float32(equal), smoothing)) == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize("delta", [0.0, 1.5, -2.0])
def test_the_anchor_costs_the_negative_log_sigmoid_of_the_reward_over_delta(delta):
    np.testing.assert_allclose(anchor(REWARDS, delta), -log_sigmoid(REWARDS - delta), rtol=2e-6, atol=2e-7)
    assert float(anchor(jnp.float32(delta), delta)) == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize("beta", [0.1, 0.8])
def test_ipo_costs_the_squared_distance_to_the_margin_it_asks_for(beta):
    expected = (PREFERRED - OTHER - 1 / (2 * beta)) ** 2
    np.testing.assert_allclose(ipo(jnp.array(PREFERRED), jnp.array(OTHER), beta), expected, rtol=1e-6)
    assert float(ipo(jnp.float32(1 / (2 * beta)), jnp.float32(0), beta)) == pytest.approx(0, abs=1e-12)


def test_ipo_costs_more_beyond_the_margin_it_asks_for():
    zero = jnp.float32(0)
    assert ipo(jnp.float32(9), zero, 0.1) > ipo(jnp.float32(6), zero, 0.1) > ipo(jnp.float32(5), zero, 0.1)


@given(equal=reward)
@settings(max_examples=20, deadline=None)
def test_equal_log_ratios_cost_one_by_four_beta_squared_under_ipo(equal):
    assert float(ipo(jnp.float32(equal), jnp.float32(equal), 0.5)) == pytest.approx(1)


def test_the_hinge_costs_what_lacks_to_a_margin_of_one():
    expected = np.maximum(0, 1 - (PREFERRED - OTHER))
    np.testing.assert_allclose(hinge(jnp.array(PREFERRED), jnp.array(OTHER)), expected, rtol=1e-6)


@given(equal=reward)
@settings(max_examples=20, deadline=None)
def test_equal_rewards_cost_one_under_the_hinge(equal):
    assert float(hinge(jnp.float32(equal), jnp.float32(equal))) == 1


@pytest.mark.parametrize("margin, slope", [(0.0, -1.0), (0.9, -1.0), (1.0, 0.0), (3.0, 0.0)])
def test_the_hinge_pushes_with_one_force_until_the_margin_and_not_beyond(margin, slope):
    assert float(jax.grad(hinge)(jnp.float32(margin), jnp.float32(0))) == slope


@given(preferred=reward, other=reward, gain=st.floats(0.0625, 10, width=32))
@settings(max_examples=30, deadline=None)
def test_a_wider_margin_never_costs_more(preferred, other, gain):
    assert dpo(jnp.float32(preferred + gain), jnp.float32(other)) <= dpo(
        jnp.float32(preferred), jnp.float32(other)
    )


@pytest.mark.parametrize(
    "loss",
    [dpo, lambda a, b: dpo(a, b, 0.1), lambda a, b: anchor(a - b, 0.5), lambda a, b: ipo(a, b, 0.1), hinge],
    ids=["dpo", "smoothed", "anchor", "ipo", "hinge"],
)
@pytest.mark.parametrize("preferred, other", [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4)])
def test_extreme_rewards_have_finite_losses_and_gradients(loss, preferred, other):
    value, slopes = jax.value_and_grad(loss, argnums=(0, 1))(jnp.float32(preferred), jnp.float32(other))
    assert np.isfinite([value, *slopes]).all()


def test_a_hopeless_pair_costs_its_margin():
    assert float(dpo(jnp.float32(-1e4), jnp.float32(1e4))) == pytest.approx(2e4)
    assert float(dpo(jnp.float32(1e4), jnp.float32(-1e4))) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_the_finite_differences(smoothing):
    step = 1e-5

    def closed_form(preferred, other):
        margin = preferred - other
        return -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin)

    slopes = jax.grad(lambda p, o: dpo(p, o, smoothing).sum(), argnums=(0, 1))(
        jnp.float32(PREFERRED), jnp.float32(OTHER)
    )
    ahead = (closed_form(PREFERRED + step, OTHER) - closed_form(PREFERRED - step, OTHER)) / (2 * step)
    np.testing.assert_allclose(slopes[0], ahead, atol=1e-6)
    np.testing.assert_allclose(slopes[1], -ahead, atol=1e-6)


def test_the_anchors_gradient_is_the_finite_difference():
    step = 1e-5
    slopes = jax.grad(lambda r: anchor(r, 0.5).sum())(jnp.float32(REWARDS))
    expected = (-log_sigmoid(REWARDS - 0.5 + step) + log_sigmoid(REWARDS - 0.5 - step)) / (2 * step)
    np.testing.assert_allclose(slopes, expected, atol=1e-6)
