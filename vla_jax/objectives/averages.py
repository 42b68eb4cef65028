"""Two losses, or two sets of pairs, made one: by averaging, or by a coin."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree


def gamma_average(
    first: Float[Array, "*b"], second: Float[Array, "*b"], gamma: float = 0.5
) -> Float[Array, "*b"]:
    """The average gamma first + (1 - gamma) second of two losses.

    Args:
      first: losses against the rejected responses of the data set.
      second: losses of the same examples against rejected responses from the policy.
      gamma: the first losses' share, in [0, 1].

    Returns:
      One loss an example.

    Source: the alignment study (BDHS), Eq. 5.
    """
    return gamma * first + (1 - gamma) * second


def bernoulli_mixture(
    keys: Key[Array, "*b"],
    first: PyTree[Float[Array, "*b"]],
    second: PyTree[Float[Array, "*b"]],
    probability: float = 0.5,
) -> PyTree[Float[Array, "*b"]]:
    """Takes `first` or `second` for each example, as its own coin falls.

    alpha first + (1 - alpha) second with alpha ~ Bernoulli(probability), as a choice: what is not taken gets
    no gradient and may be infinite or NaN. Hand in the pairs' rewards rather than their losses: one loss is
    then computed instead of two. And whatever computed an infinite value must itself be safe to
    differentiate: its gradient is multiplied by the 0 that it receives here, and 0 times infinity is NaN.

    Args:
      keys: one random key an example, derived from the record and the epoch or step, so that its coin depends
        on no batch mate.
      first: losses, or rewards in any tree of arrays, of the pairs of the data set.
      second: the same of the pairs sampled from the policy.
      probability: of taking `first`.

    Returns:
      A tree like `first`. One example's coin is the same in all its arrays.

    Source: the alignment study (BDHS), Eq. 4 (Mixed-DPO).
    """
    coins = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys.ravel()).reshape(keys.shape)
    return jax.tree.map(lambda one, other: jnp.where(coins, one, other), first, second)
