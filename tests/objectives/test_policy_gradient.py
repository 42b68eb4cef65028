"""The clipped policy loss on token rewards: where it follows the ratio, where it stops, what it counts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vla_jax.objectives import clipped_policy_loss, clipped_tokens

ANY, ALL = jnp.ones((1, 1), bool), jnp.ones((2, 4), bool)
token_rows = arrays(np.float32, (2, 4), elements=st.floats(-3, 3, width=32, allow_subnormal=False))


loss_of_rows = jax.jit(clipped_policy_loss, static_argnames="paper_clip")


@partial(jax.jit, static_argnums=2)
def against_itself(log_probs, advantages, paper_clip):
    """Loss and gradient where the rollout policy is the policy."""
    return jax.value_and_grad(
        lambda lp: clipped_policy_loss(lp, lp, advantages, ALL, paper_clip=paper_clip)[0].sum()
    )(log_probs)


@partial(jax.jit, static_argnames="paper_clip")
@jax.value_and_grad
def loss_and_slope(log_ratio, advantage, **settings):
    """Of a single token, along its log-ratio."""
    rollout, worth = jnp.full((1, 1), -1.5), jnp.full((1, 1), advantage)
    return clipped_policy_loss(rollout + log_ratio, rollout, worth, ANY, **settings)[0][0]


def one_token(ratio, advantage, **settings):
    """Loss of a single token, and its slope along the log-ratio."""
    return [float(number) for number in loss_and_slope(np.log(ratio), advantage, **settings)]


@pytest.mark.smoke
@pytest.mark.parametrize(
    "ratio, advantage, effective, moves",
    [
        (1.1, 2.0, 1.1, True),  # within the trust region
        (0.9, -2.0, 0.9, True),
        (1.5, 2.0, 1.2, False),  # good and already likelier: enough
        (0.5, 2.0, 0.5, True),  # good and unlikelier: pushed back up
        (0.5, -2.0, 0.8, False),  # bad and already unlikelier: enough
        (1.5, -2.0, 1.5, True),  # bad and likelier: pushed back down
    ],
)
def test_a_tokens_ratio_stops_counting_where_it_went_far_enough(ratio, advantage, effective, moves):
    loss, slope = one_token(ratio, advantage)
    assert loss == pytest.approx(-effective * advantage, rel=1e-5)
    assert slope == pytest.approx(-ratio * advantage if moves else 0, rel=1e-5)


@pytest.mark.parametrize(
    "ratio, advantage, effective, moves",
    [
        (1.5, 2.0, 1.2, False),
        (0.5, 2.0, 0.5, True),
        (0.5, -2.0, 0.5, True),  # bad and unlikelier: pushed on
        (1.5, -2.0, 1.2, False),  # bad and likelier: left alone
    ],
)
def test_the_printed_clip_takes_the_smaller_ratio_whatever_the_sign(ratio, advantage, effective, moves):
    loss, slope = one_token(ratio, advantage, paper_clip=True)
    assert loss == pytest.approx(-effective * advantage, rel=1e-5)
    assert slope == pytest.approx(-ratio * advantage if moves else 0, rel=1e-5)


def test_the_two_sides_of_the_trust_region_can_differ():
    settings = {"clip_low": 0.1, "clip_high": 0.4}
    assert one_token(1.3, 1.0, **settings) == pytest.approx([-1.3, -1.3], rel=1e-5)
    assert one_token(1.5, 1.0, **settings) == pytest.approx([-1.4, 0], rel=1e-5)
    assert one_token(0.85, -1.0, **settings) == pytest.approx([0.9, 0], rel=1e-5)


@pytest.mark.parametrize("paper_clip", [False, True])
@given(log_probs=token_rows, advantages=token_rows)
@settings(max_examples=20, deadline=None)
def test_on_the_rollout_policy_it_is_the_plain_policy_gradient(paper_clip, log_probs, advantages):
    value, slopes = against_itself(log_probs, advantages, paper_clip)
    assert float(value) == pytest.approx(-advantages.sum(), rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(slopes, -advantages, rtol=1e-6, atol=1e-30)


@given(log_probs=token_rows, rollout=token_rows, advantages=arrays(np.float32, (2, 4), elements=st.just(2)))
@settings(max_examples=20, deadline=None)
def test_the_printed_clip_is_the_usual_one_for_rewards(log_probs, rollout, advantages):
    usual, printed = (
        loss_of_rows(log_probs, rollout, advantages, ALL, paper_clip=flag)[0] for flag in (False, True)
    )
    np.testing.assert_allclose(usual, printed, rtol=1e-6)


def test_the_rollout_and_the_advantages_are_constants():
    rows = jnp.array(np.random.default_rng(0).normal(size=(3, 2, 4)), jnp.float32)
    slopes = jax.jit(jax.grad(lambda a: loss_of_rows(*a, ALL)[0].sum()))(rows)
    assert slopes[0].any() and not slopes[1:].any()


@pytest.mark.parametrize("log_ratio", [25.0, 1e4])
def test_a_bad_token_far_out_of_the_trust_region_costs_e_to_the_20_without_a_gradient(log_ratio):
    loss, slope = loss_and_slope(log_ratio, -1.0)
    assert float(loss) == pytest.approx(np.exp(20), rel=1e-5) and float(slope) == 0


def test_sums_the_counted_tokens_of_each_row_and_counts_them():
    mask = jnp.array([[True, False, True], [False, False, False]])
    zeros = jnp.zeros((2, 3))
    losses, tokens = clipped_policy_loss(zeros, zeros, jnp.full((2, 3), 2.0), mask)
    np.testing.assert_array_equal(losses, [-4, 0])
    np.testing.assert_array_equal(tokens, [2, 0])
    assert tokens.dtype == jnp.float32


@pytest.mark.parametrize("broken", [jnp.inf, -jnp.inf, jnp.nan])
def test_uncounted_tokens_count_nowhere_whatever_they_hold(broken):
    mask = jnp.array([[True, False]])
    values = jnp.where(mask, 0.05, broken)

    @jax.jit
    @jax.value_and_grad
    def total(log_probs):
        return clipped_policy_loss(log_probs, jnp.zeros((1, 2)), values, mask)[0].sum()

    value, slopes = total(values)
    assert float(value) == pytest.approx(-0.05 * np.exp(0.05))
    assert np.isfinite(slopes).all() and not slopes[0, 1]
    assert not clipped_tokens(values, jnp.zeros((1, 2)), values, mask)[1].any()


RATIOS = jnp.log(jnp.array([[0.5, 0.5, 1.0, 1.5, 1.5, 1.5, 0.5]]))
WORTH = jnp.array([[-1.0, 1.0, 1.0, -1.0, 1.0, 0.0, -1.0]])
COUNTED = jnp.array([[True] * 6 + [False]])


@pytest.mark.parametrize("paper_clip, low, high", [(False, 1, 1), (True, 0, 2)])
def test_clipped_tokens_are_those_without_a_gradient_for_being_clipped(paper_clip, low, high):
    counts = jax.jit(clipped_tokens, static_argnames="paper_clip")(
        RATIOS, jnp.zeros((1, 7)), WORTH, COUNTED, paper_clip=paper_clip
    )
    assert [float(count[0]) for count in counts] == [low, high]

    @jax.jit
    @jax.grad
    def slopes_of(log_probs):
        zeros = jnp.zeros((1, 7))
        return clipped_policy_loss(log_probs, zeros, WORTH, COUNTED, paper_clip=paper_clip)[0].sum()

    slopes = slopes_of(RATIOS)
    assert int(((slopes == 0) & COUNTED & (WORTH != 0)).sum()) == low + high
