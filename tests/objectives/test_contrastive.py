"""The contrastive loss: closed forms, and transformers' own."""

import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.objectives import contrastive


@pytest.mark.smoke
def test_without_any_likeness_every_pair_is_one_of_the_batch():
    np.testing.assert_allclose(contrastive(jnp.zeros((5, 5))), np.full(5, np.log(5)), rtol=1e-6)


def test_a_pair_is_picked_from_both_sides():
    # Row 0 is sure of its text; column 0 is torn between images 0 and 1.
    logits = jnp.array([[9.0, -99.0], [9.0, -99.0]])
    first = (0.0 + np.log(2)) / 2
    second = (108.0 + np.log(2)) / 2
    np.testing.assert_allclose(contrastive(logits), [first, second], rtol=1e-6)


@pytest.mark.parity
def test_its_mean_is_the_loss_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    logits = np.random.default_rng(0).normal(size=(6, 6), scale=4).astype(np.float32)
    theirs = image_text_contrastive_loss(torch.tensor(logits.T))  # texts by images
    assert float(contrastive(jnp.array(logits)).mean()) == pytest.approx(float(theirs), rel=1e-6)
