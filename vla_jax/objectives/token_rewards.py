"""Rewards of single tokens, from what a verifier says of the words that name objects."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Baselines(NamedTuple):
    """Where a verifier's scores of object words lie, measured over a model's own responses.

    Attributes:
      correct: mean score of words whose object is there.
      hallucinated: mean score of words whose object is not.
      lowest, highest: the extremes of all scores.
    """

    correct: float
    hallucinated: float
    lowest: float
    highest: float


class TokenRewards(NamedTuple):
    """What tokens are worth.

    Attributes:
      rewards: 0 at tokens that are not rewarded.
      praised: True where the score lies above the upper threshold.
      blamed: True where it lies below the lower one.
    """

    rewards: Float[Array, "*b t"]
    praised: Bool[Array, "*b t"]
    blamed: Bool[Array, "*b t"]


def verified_token_rewards(
    scores: Float[Array, "*b t"],
    entities: Bool[Array, "*b t"],
    divergences: Float[Array, "*b t"],
    baselines: Baselines,
    margin: float = 10.0,
    divergence_weight: float = 0.2,
    paper_denominator: bool = False,
) -> TokenRewards:
    """Rewards the words that the verifier is sure of, and blames those that it does not see.

    With low = hallucinated - margin and high = correct + margin, a token that names an object is worth

      (S - low) / (low - lowest)     in [-1, 0]   where S < low
      (S - high) / (highest - high)  in [0, 1]    where S > high
      0                                           elsewhere, and where it names none

    and, where one of the first two lines holds, less divergence_weight times the divergence there. Scores
    beyond the measured extremes count as the extremes.

    Args:
      scores: S, of the word that each token belongs to; not read at other tokens.
      entities: True at tokens that name an object.
      divergences: KL(reference || policy) over the vocabulary at each token.
      baselines: of the verifier's scores.
      margin: the paper's lambda, on the scale of the scores.
      divergence_weight: the paper's xi.
      paper_denominator: divide by (correct - margin) - lowest in the first line, as the paper prints it.

    Source: FiSAO, Eq. 12 and appendix A.1.5. Held constant: nothing of it is differentiated.
    """
    low, high = baselines.hallucinated - margin, baselines.correct + margin
    below = (baselines.correct - margin if paper_denominator else low) - baselines.lowest
    blamed = entities & (scores < low)
    praised = entities & (scores > high) & ~blamed
    worth = jnp.where(blamed, _share(scores - low, below), _share(scores - high, baselines.highest - high))
    rewarded = praised | blamed
    rewards = jnp.where(rewarded, worth - divergence_weight * divergences, 0.0)
    return TokenRewards(jax.lax.stop_gradient(rewards), praised, blamed)


def _share(distance: Float[Array, "*b t"], of: float) -> Float[Array, "*b t"]:
    """A distance as a share of the largest one, in [-1, 1]; all of it where the largest is 0."""
    return jnp.clip(distance / of, -1, 1) if of > 0 else jnp.sign(distance)
