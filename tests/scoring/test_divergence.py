"""The divergence of two models at every token, against NumPy on whole softmaxes."""

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from vla_jax.scoring import vocabulary
from vla_jax.scoring.divergence import divergences


@pytest.fixture
def models():
    random = np.random.default_rng(0)
    matrices = random.normal(size=(2, 16, 50)).astype(np.float32)
    states = random.normal(size=(2, 2, 3, 7, 16)).astype(np.float32)
    return [(matrix, state) for matrix, state in zip(matrices, states, strict=True)]


@pytest.mark.parametrize("chunk", [2048, 12])  # all at once, and two tokens of every candidate at a time
def test_it_is_that_of_whole_softmaxes(models, chunk, monkeypatch):
    monkeypatch.setattr(vocabulary, "_CHUNK", chunk)
    (matrix, states), (other_matrix, other_states) = models
    p, q = (np.exp(log_softmax(s.astype(np.float64) @ m, axis=-1)) for m, s in models)
    found = divergences(matrix, states, other_matrix, other_states)
    np.testing.assert_allclose(found, rel_entr(p, q).sum(-1), rtol=1e-4, atol=1e-5)


def test_a_model_is_not_apart_from_itself(models):
    model = models[0]
    np.testing.assert_allclose(divergences(*model, *model), 0, atol=1e-6)
