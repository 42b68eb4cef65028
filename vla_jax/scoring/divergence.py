"""How far two models are apart at every token, over the whole vocabulary and a chunk of tokens at a time."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.models.target import Target
from vla_jax.scoring.vocabulary import in_chunks, logits_of


def divergences(
    matrix: Float[Array, "d w"],
    states: Float[Array, "b c t d"],
    other_matrix: Float[Array, "d w"],
    other_states: Float[Array, "b c t d"],
    target: Target | None = None,
) -> Float[Array, "b c t"]:
    """KL(p || q) = sum over the vocabulary of p (log p - log q), in float32, at every position.

    Args:
      matrix, states: from which p is predicted.
      other_matrix, other_states: from which q is.
      target: over which devices rows are spread; None is one.
    """

    def of_chunk(states: Array, other_states: Array) -> Array:
        log_p = jax.nn.log_softmax(logits_of(matrix, states))
        log_q = jax.nn.log_softmax(logits_of(other_matrix, other_states))
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)

    return in_chunks(of_chunk, target, states, other_states)
