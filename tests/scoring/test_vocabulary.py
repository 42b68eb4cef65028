"""Log-probabilities of chosen tokens in half precision, where the model is all but certain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.scoring.vocabulary import chosen_log_probs


@pytest.mark.parametrize("certain", [0.5, 0.99, 0.9999])
def test_half_precision_gradients_of_certain_tokens_keep_their_size(certain):
    """Against float32 on the same rounded numbers: what is left of 1 - p must not be lost in rounding p."""
    random = np.random.default_rng(0)
    width, words = 32, 50
    matrix = jnp.array(random.normal(size=(width, words)), jnp.bfloat16)
    targets = jnp.array(random.integers(0, words, (1, 2, 8)))
    # States that point along their target's column, far enough to make it as certain as asked.
    columns = matrix.T.astype(jnp.float32)[targets]
    length = np.log(certain / (1 - certain) * words) / width
    states = (columns * length).astype(jnp.bfloat16)

    def slope(matrix, states):
        return jax.grad(lambda states: chosen_log_probs(matrix, states, targets).sum())(states)

    exact = slope(matrix.astype(jnp.float32), states.astype(jnp.float32))
    rounded = slope(matrix, states).astype(jnp.float32)
    apart = jnp.linalg.norm(rounded - exact, axis=-1) / jnp.linalg.norm(exact, axis=-1)
    assert float(apart.max()) < 0.02
