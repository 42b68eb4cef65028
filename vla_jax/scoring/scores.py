"""What an objective is given: token log-probabilities of the candidates, policy beside reference."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, UInt8

from vla_jax.models import llava
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.scoring.image_words import image_word_log_likelihood
from vla_jax.scoring.plain import token_log_probs
from vla_jax.views import normalise


class Candidate(NamedTuple):
    """One response read under one view, as indices into a recipe's views and responses."""

    view: int
    response: int


class Scores(flax.struct.PyTreeNode):
    """Scores of a batch.

    Attributes:
      policy_tokens: float32 log-probabilities under the policy, 0 at padding.
      reference_tokens: the same under the frozen reference; None where the recipe needs none.
      mask: True at tokens that count.
      image_words: log-likelihood of each candidate's words as read off the image alone (see
        `image_words.py`); None where the recipe does not ask for it.
    """

    policy_tokens: Float[Array, "b c t"]
    reference_tokens: Float[Array, "b c t"] | None
    mask: Bool[Array, "b c t"]
    image_words: Float[Array, "b c"] | None = None

    @property
    def policy(self) -> Float[Array, "b c"]:
        """Log-probability of each candidate under the policy, summed over its counted tokens."""
        return jnp.sum(self.policy_tokens * self.mask, axis=-1)

    @property
    def reference(self) -> Float[Array, "b c"]:
        """The same under the reference.

        Raises:
          ValueError: where no reference was scored.
        """
        if self.reference_tokens is None:
            raise ValueError("this recipe was scored without a reference; set needs_reference=True in it")
        return jnp.sum(self.reference_tokens * self.mask, axis=-1)

    @property
    def log_ratios(self) -> Float[Array, "b c"]:
        """log policy - log reference of each candidate; a reward is beta times it."""
        return self.policy - self.reference


class Prompted(NamedTuple):
    """The token side of a batch.

    Attributes:
      prefix_tokens, prefix_mask: prompts with expanded image placeholders, left-padded [b s].
      response_tokens, response_mask: responses, right-padded [b r t].
      scored: which response tokens count [b r t].
    """

    prefix_tokens: Int[Array, "b s"]
    prefix_mask: Bool[Array, "b s"]
    response_tokens: Int[Array, "b r t"]
    response_mask: Bool[Array, "b r t"]
    scored: Bool[Array, "b r t"]


def score(
    config: LlavaConfig,
    policy: tuple[Params, Adapter | None],
    reference: tuple[Params, Adapter | None] | None,
    views: UInt8[Array, "b v y x 3"],
    prompted: Prompted,
    candidates: Sequence[Candidate],
    image_words: bool = False,
) -> Scores:
    """Scores every candidate under the policy and, where one is given, the reference.

    The vision tower runs once a view. The reference shares the policy's features where nothing before the
    language model differs between them, and is never differentiated.

    Args:
      config: the model.
      policy: parameters and adapter of the policy.
      reference: the same of the reference; None scores none.
      views: images, uint8.
      prompted: prompts and responses.
      candidates: which responses are read under which views.
      image_words: also score what the policy's image tokens alone say.
    """
    pairs = [(candidate.view, candidate.response) for candidate in candidates]

    def run(model: tuple[Params, Adapter | None], features: Float[Array, "b v n d"]) -> Array:
        return token_log_probs(*model, config, features, *prompted[:4], candidates=pairs)

    features = encode_views(config, policy, views)
    reference_tokens = None
    if reference is not None:
        shared = _same_eyes(policy, reference)
        own = features if shared else encode_views(config, reference, views)
        reference_tokens = jax.lax.stop_gradient(run(reference, jax.lax.stop_gradient(own)))
    bag = None
    if image_words:
        bag = image_word_log_likelihood(policy[0], features, prompted.response_tokens, prompted.scored, pairs)
    scored = prompted.scored[:, [candidate.response for candidate in candidates]]
    return Scores(run(policy, features), reference_tokens, scored, bag)


def encode_views(
    config: LlavaConfig, model: tuple[Params, Adapter | None], views: UInt8[Array, "b v y x 3"]
) -> Float[Array, "b v n d"]:
    """Image tokens of every view."""
    params, adapter = model
    pixels = normalise(views, config.vision.pixel_mean, config.vision.pixel_std)
    flat = rearrange(pixels, "b v y x c -> (b v) y x c")
    features = llava.image_features(params, config, flat, adapter)
    return rearrange(features, "(b v) n d -> b v n d", v=views.shape[1])


def _same_eyes(policy: tuple[Params, Adapter | None], reference: tuple[Params, Adapter | None]) -> bool:
    """Whether both models see through the very same arrays, known at trace time."""

    def eyes(model: tuple[Params, Adapter | None]) -> list[Array]:
        return jax.tree.leaves([{k: part.get(k) for k in ("vision", "projector")} for part in model if part])

    theirs = eyes(reference)
    return len(eyes(policy)) == len(theirs) and all(a is b for a, b in zip(eyes(policy), theirs, strict=True))
