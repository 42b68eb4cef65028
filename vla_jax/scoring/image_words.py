"""What the image tokens alone, before any language model reads them, say about the words of a response."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models import llava
from vla_jax.models.parameters import Params


def image_word_log_likelihood(
    params: Params,
    features: Float[Array, "b v n d"],
    response_tokens: Int[Array, "b r t"],
    scored: Bool[Array, "b r t"],
    candidates: Sequence[tuple[int, int]],
) -> Float[Array, "b c"]:
    """Log-likelihood of which words a response holds and which it does not, read off the image tokens.

    Each image token votes for every word of the vocabulary through the output matrix. A word's logit is the
    log-sum-exp of its votes over the image, so that one patch is enough to name an object, less the log of
    the number of votes and of words: without evidence a word is as unlikely as any other. Words are
    independent Bernoulli variables.

    Args:
      params: the model's parameters.
      features: image tokens of each view.
      response_tokens, scored: responses, right-padded, and which of their tokens count.
      candidates: (view, response) index pairs.

    Source: multi-label words of captions as targets for a vision tower, Joulin et al. 2016
    (arXiv:1511.02251), with log-sum-exp pooling (Pinheiro and Collobert 2015, arXiv:1411.6228).
    """
    views, responses = map(list, zip(*candidates, strict=True))
    votes = llava.logits(params, features)
    logits = (jax.nn.logsumexp(votes, axis=2) - math.log(votes.shape[2] * votes.shape[3]))[:, views]
    # Scattering into one spare column keeps uncounted tokens out of every word.
    spare = votes.shape[-1]
    tokens = jnp.where(scored, response_tokens, spare)[:, responses]
    said = jax.vmap(jax.vmap(lambda ids: jnp.zeros(spare + 1, bool).at[ids].set(True)))(tokens)[..., :spare]
    return jnp.sum(jnp.where(said, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)), axis=-1)
