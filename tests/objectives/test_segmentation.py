"""Soft IoU, and the losses on segmentation embeddings, masks and sentence features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vla_jax.objectives import iou_preference, soft_iou, soft_iou_improvement, text_improvement

compiled_iou, compiled_preference = jax.jit(soft_iou), jax.jit(iou_preference)
LN2 = pytest.approx(np.log(2), rel=1e-6)
RNG = np.random.default_rng(0)
binary = arrays(np.bool_, (4, 5))
probabilities = arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32))


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def cosine(one, other):
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


def iou(one, other):
    """Of soft masks, by its definition."""
    shared = (one * other).sum((-2, -1))
    return shared / (one.sum((-2, -1)) + other.sum((-2, -1)) - shared)


# --- soft IoU ----------------------------------------------------------------------------------------


@pytest.mark.smoke
@given(one=binary, other=binary)
@settings(max_examples=30, deadline=None)
def test_on_binary_masks_it_is_the_iou(one, other):
    union = (one | other).sum()
    expected = (one & other).sum() / union if union else 1.0
    assert float(compiled_iou(jnp.float32(one), jnp.array(other))) == pytest.approx(expected, rel=1e-6)


@given(one=probabilities, other=probabilities)
@settings(max_examples=30, deadline=None)
def test_lies_between_zero_and_one_and_is_symmetric(one, other):
    value = float(compiled_iou(one, other))
    assert 0 <= value <= 1 + 1e-6
    assert value == pytest.approx(float(compiled_iou(other, one)), rel=1e-5, abs=1e-6)


def test_a_pixel_moved_towards_the_truth_raises_it():
    target = jnp.array([[True, False]])
    slopes = jax.jit(jax.grad(soft_iou))(jnp.array([[0.6, 0.3]]), target)
    assert slopes[0, 0] > 0 > slopes[0, 1]


def test_two_empty_masks_agree_with_a_finite_gradient():
    value, slopes = jax.jit(jax.value_and_grad(soft_iou))(jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    assert float(value) == 1 and np.isfinite(slopes).all()


# --- segmentation preference -------------------------------------------------------------------------

MIDDLE, BEST, WORST = RNG.normal(size=(3, 10, 6)).astype(np.float32)


@pytest.mark.parametrize("beta", [5.0, 10.0])
def test_the_middle_is_drawn_to_the_best_embedding_by_cosine(beta):
    expected = -log_sigmoid(beta * (cosine(MIDDLE, BEST) - cosine(MIDDLE, WORST)))
    losses = compiled_preference(MIDDLE, BEST, WORST, beta)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


def test_best_and_worst_embeddings_are_constants():
    slopes = jax.jit(jax.grad(lambda *e: iou_preference(*e).sum(), argnums=(0, 1, 2)))(MIDDLE, BEST, WORST)
    assert np.abs(slopes[0]).max() > 0.1
    assert not slopes[1].any() and not slopes[2].any()


def test_an_embeddings_length_does_not_matter():
    losses = compiled_preference(MIDDLE, BEST, WORST)
    scaled = compiled_preference(3 * MIDDLE, 0.01 * BEST, 1000 * WORST)
    np.testing.assert_allclose(scaled, losses, rtol=1e-4, atol=1e-6)


def test_equal_or_empty_embeddings_cost_ln_2_with_finite_gradients():
    differentiated = jax.jit(jax.value_and_grad(iou_preference))
    for middle, other in ((MIDDLE[0], BEST[0]), (np.zeros(6), BEST[0]), (MIDDLE[0], np.zeros(6))):
        value, slope = differentiated(*map(jnp.float32, (middle, other, other)))
        assert float(value) == LN2 and np.isfinite(slope).all()


# --- improvement of refined answers ------------------------------------------------------------------

REFINED, SAMPLED = RNG.uniform(size=(2, 3, 4, 5)), RNG.uniform(size=(2, 4, 3, 4, 5))
TARGET = RNG.uniform(size=(2, 3, 4, 5)) > 0.5
PRESENT = jnp.array([[True, True, False], [False, False, False]])
improvement = jax.jit(soft_iou_improvement)
MASKS = (jnp.float32(REFINED), jnp.float32(SAMPLED), jnp.array(TARGET))


def test_masks_improve_on_the_mean_over_responses_and_present_objects():
    gains = iou(REFINED, TARGET)[:, None] - iou(SAMPLED, TARGET[:, None])
    assert gains.shape == (2, 4, 3)
    losses = improvement(*MASKS, PRESENT)
    np.testing.assert_allclose(losses, [-log_sigmoid(10 * gains[0, :, :2]).mean(), 0], rtol=1e-5)
    everything = improvement(*MASKS, PRESENT | True)
    np.testing.assert_allclose(everything, -log_sigmoid(10 * gains).mean((1, 2)), rtol=1e-5)


def test_masks_that_did_not_improve_cost_ln_2():
    refined, _, target = MASKS
    unchanged = jnp.broadcast_to(refined[:, None], (2, 4, 3, 4, 5))
    assert float(improvement(refined, unchanged, target, PRESENT | True)[0]) == LN2


def test_sampled_masks_are_constants_and_absent_objects_have_no_gradient():
    def total(refined, sampled):
        return soft_iou_improvement(refined, sampled, MASKS[2], PRESENT).sum()

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(*MASKS[:2])
    assert np.asarray(slopes[0])[0, :2].any() and not np.asarray(slopes[0])[~PRESENT].any()
    assert not slopes[1].any()


FEATURES = RNG.normal(size=(2, 8)), RNG.normal(size=(2, 3, 8)), RNG.normal(size=(2, 8))
LIKELIHOOD = jnp.array([0.7, 0.2])


def test_text_improves_on_the_mean_over_responses():
    refined, sampled, target = FEATURES
    gains = cosine(refined, target)[:, None] - cosine(sampled, target[:, None])
    expected = -log_sigmoid(10 * np.array([[0.7], [0.2]]) * gains).mean(-1)
    losses = jax.jit(text_improvement)(LIKELIHOOD, *map(jnp.float32, FEATURES))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_only_the_likelihood_is_trained_and_rises_where_the_text_improved():
    target = jnp.float32(FEATURES[2])
    features = (target, -target[:, None], target)
    total = jax.jit(jax.grad(lambda *inputs: text_improvement(*inputs).sum(), argnums=(0, 1, 2, 3)))
    slopes = total(LIKELIHOOD, *features)
    assert (slopes[0] < 0).all()
    assert not any(slope.any() for slope in slopes[1:])
