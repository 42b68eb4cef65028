"""Estimates of the divergence from the reference, and rewards that pay for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.objectives import kl_estimate, penalised_rewards


@pytest.mark.smoke
def test_the_estimates_of_one_token_by_hand():
    """The policy holds it twice as likely as the reference: d = ln 2."""
    log_probs, reference = jnp.log(jnp.array([0.5])), jnp.log(jnp.array([0.25]))
    ln_2 = np.log(2)
    for kind, expected in {"k1": ln_2, "k2": ln_2**2 / 2, "k3": 0.5 - 1 + ln_2}.items():
        assert float(kl_estimate(log_probs, reference, kind)[0]) == pytest.approx(expected, rel=1e-6), kind


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_the_mean_over_samples_is_the_divergence(kind):
    rng = np.random.default_rng(0)
    policy, reference = rng.dirichlet(np.ones(8), 2)
    # The expectation over the policy's own tokens, without sampling noise.
    estimates = kl_estimate(jnp.log(policy), jnp.log(reference), kind)
    exact = np.sum(policy * np.log(policy / reference))
    assert float(np.dot(policy, estimates)) == pytest.approx(exact, rel=1e-5)


def test_only_the_first_estimate_is_ever_negative_and_all_vanish_where_both_agree():
    log_probs, reference = -jnp.linspace(0, 6, 7), -3 * jnp.ones(7)
    first, second, third = (kl_estimate(log_probs, reference, kind) for kind in ("k1", "k2", "k3"))
    assert (first < 0).any() and (second >= 0).all() and (third >= 0).all()
    assert first[3] == second[3] == third[3] == 0


def test_a_token_that_the_reference_holds_far_likelier_is_finite_with_a_gradient():
    value, slope = jax.value_and_grad(lambda lp: kl_estimate(lp, jnp.float32(0), "k3"))(jnp.float32(-1e4))
    assert float(value) == pytest.approx(np.exp(20), rel=1e-3) and float(slope) == 1


def test_an_unknown_estimate_is_refused():
    with pytest.raises(ValueError, match="no estimate 'k4'; choose k1, k2 or k3"):
        kl_estimate(jnp.zeros(1), jnp.zeros(1), "k4")


def test_the_last_token_receives_the_reward_and_every_token_pays():
    mask = jnp.array([[True, True, False], [True, True, True], [False, False, False]])
    kl = jnp.where(mask, jnp.array([1.0, 2.0, -4.0]), jnp.nan)
    rewards = penalised_rewards(jnp.array([10.0, -3.0, 5.0]), kl, mask, 0.5)
    np.testing.assert_allclose(rewards, [[-0.5, 9, 0], [-0.5, -1, -1], [0, 0, 0]], rtol=1e-6)
