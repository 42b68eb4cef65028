"""What an objective is given: token log-probabilities of the candidates, policy beside reference."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, UInt8

from vla_jax.data.batches import Experience
from vla_jax.models import llama, llava, reward
from vla_jax.models.compute import Compute
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.scoring.image_words import image_word_log_likelihood
from vla_jax.scoring.vocabulary import chosen_log_probs, likeliest_tokens
from vla_jax.views import normalise

Model = tuple[Params, Adapter | None]


class Candidate(NamedTuple):
    """One response read under one view, as indices into a recipe's views and responses."""

    view: int
    response: int


class TeacherForced(NamedTuple):
    """A response that a model makes: at every place of `response`, the token it holds likeliest under `view`.

    What stands before that place is the given response, not the made one.
    """

    view: int
    response: int


class Scores(flax.struct.PyTreeNode):
    """Scores of a batch.

    Attributes:
      policy_tokens: float32 log-probabilities under the policy, 0 at padding.
      reference_tokens: the same under the frozen reference; None where the recipe needs none.
      mask: True at tokens that count.
      changed: True at tokens that set the response apart from the others; None where it is not asked for.
      image_words: log-likelihood of each candidate's words as read off the image alone (see
        `image_words.py`); None where the recipe does not ask for it.
      sequences: what the reward head says of each candidate; None where the recipe does not ask for it.
      values: what the value head expects before each token; None where the recipe does not ask for it.
      divergences: KL(reference || policy) at each token, held constant; None where the recipe does not ask.
      experience: what was found out about sampled responses before; None where they are the data's.
      mean_logits: the policy's logits, a mean over the vocabulary and each candidate's counted tokens; to be
        logged, not differentiated.
    """

    policy_tokens: Float[Array, "b c t"]
    reference_tokens: Float[Array, "b c t"] | None
    mask: Bool[Array, "b c t"]
    changed: Bool[Array, "b c t"] | None = None
    image_words: Float[Array, "b c"] | None = None
    sequences: Float[Array, "b c"] | None = None
    values: Float[Array, "b c t"] | None = None
    divergences: Float[Array, "b c t"] | None = None
    experience: Experience | None = None
    mean_logits: Float[Array, "b c"] | None = None

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
        return jnp.sum(self._reference_tokens * self.mask, axis=-1)

    @property
    def log_ratios(self) -> Float[Array, "b c"]:
        """log policy - log reference of each candidate; a reward is beta times it."""
        return jnp.sum((self.policy_tokens - self._reference_tokens) * self.mask, axis=-1)

    @property
    def mean_log_ratios(self) -> Float[Array, "b c"]:
        """The same, a mean over each candidate's counted tokens; 0 where it has none."""
        return self.log_ratios / jnp.maximum(jnp.sum(self.mask, axis=-1), 1)

    @property
    def _reference_tokens(self) -> Float[Array, "b c t"]:
        if self.reference_tokens is None:
            raise ValueError("this recipe was scored without a reference; set needs_reference=True in it")
        return self.reference_tokens


class Prompted(NamedTuple):
    """The token side of a batch.

    Attributes:
      prefix_tokens, prefix_mask: prompts with expanded image placeholders, left-padded [b s].
      response_tokens, response_mask: responses, right-padded [b r t].
      scored: which response tokens count [b r t].
      changed: which of them set a response apart from the others [b r t]; None where nothing asks.
    """

    prefix_tokens: Int[Array, "b s"]
    prefix_mask: Bool[Array, "b s"]
    response_tokens: Int[Array, "b r t"]
    response_mask: Bool[Array, "b r t"]
    scored: Bool[Array, "b r t"]
    changed: Bool[Array, "b r t"] | None = None


class ReferenceScores(NamedTuple):
    """What the frozen reference says of a batch; it can be computed once and kept.

    Attributes:
      tokens: float32 log-probabilities of every candidate's tokens [b c t].
      made: the responses that it made by teacher forcing [b m t]; m is often 0.
    """

    tokens: Float[Array, "b c t"]
    made: Int[Array, "b m t"]


def encode_views(
    config: LlavaConfig,
    model: Model,
    views: UInt8[Array, "b v *k y x 3"],
    layout: Int[Array, "b n"] | None = None,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Float[Array, "b v n d"]:
    """Image tokens of every view; the tower runs once a view.

    Args:
      config: the model.
      model: its parameters and adapter.
      views: images as 0 to 255 (floats, to differentiate by them); with a layout, k tiles of each.
      layout: order of the tokens in the tiles, see `llava.tiled_features`.
      compute: where activations lie.
    """
    params, adapter = model
    pixels = normalise(views, config.vision.pixel_mean, config.vision.pixel_std)
    flat = rearrange(pixels, "b v ... -> (b v) ...")
    if layout is None:
        features = llava.image_features(params, config, flat, adapter, compute.target)
    else:
        order = jnp.repeat(layout, views.shape[1], axis=0)
        features = llava.tiled_features(params, config, flat, order, adapter, compute.target)
    return rearrange(features, "(b v) n d -> b v n d", v=views.shape[1])


def same_eyes(policy: Model, reference: Model) -> bool:
    """Whether both models see through the very same arrays, known at trace time."""

    def eyes(model: Model) -> list[Array]:
        names = ("vision", "projector", "newline")
        return jax.tree.leaves([{name: part.get(name) for name in names} for part in model if part])

    theirs = eyes(reference)
    return len(eyes(policy)) == len(theirs) and all(a is b for a, b in zip(eyes(policy), theirs, strict=True))


def reference_scores(
    config: LlavaConfig,
    model: Model,
    features: Float[Array, "b v n d"],
    prompted: Prompted,
    candidates: Sequence[Candidate],
    made: Sequence[TeacherForced] = (),
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> ReferenceScores:
    """Scores every candidate under a model that is not trained; nothing of it is differentiated.

    Args:
      config: the model.
      model: its parameters and adapter.
      features: image tokens of each view, as this model sees them.
      prompted: prompts and responses.
      candidates: which responses are read under which views; responses made stand behind the given ones.
      made: the responses that this model makes.
      compute: how the language model is computed.
    """
    params, adapter = model
    rows, _, length = prompted.response_tokens.shape
    tokens = jnp.zeros((rows, 0, length), jnp.int32)
    if made:
        states = llava.branch_states(params, config, features, *prompted[:4], made, adapter, compute)
        matrix = llama.output_matrix(params["language"])
        given = prompted.response_mask[:, [response for _, response in made]]
        tokens = jnp.where(given, likeliest_tokens(matrix, states, compute.target), 0)
    complete = with_made(prompted, tokens, made)
    states = llava.branch_states(params, config, features, *complete[:4], candidates, adapter, compute)
    log_probs = _log_probs(params, states, complete, candidates, compute)
    return jax.lax.stop_gradient(ReferenceScores(log_probs, tokens))


def with_made(prompted: Prompted, tokens: Int[Array, "b m t"], made: Sequence[TeacherForced]) -> Prompted:
    """The prompts with made responses behind the given ones, as long as those they were made from."""
    if not made:
        return prompted
    sources = [response for _, response in made]

    def extended(given: Array) -> Array:
        return jnp.concatenate([given, given[:, sources]], axis=1)

    return prompted._replace(
        response_tokens=jnp.concatenate([prompted.response_tokens, tokens], axis=1),
        response_mask=extended(prompted.response_mask),
        scored=extended(prompted.scored),
        changed=None if prompted.changed is None else extended(prompted.changed),
    )


def score(
    config: LlavaConfig,
    policy: Model,
    features: Float[Array, "b v n d"],
    prompted: Prompted,
    candidates: Sequence[Candidate],
    reference: ReferenceScores | None = None,
    *,
    image_words: bool = False,
    sequences: bool = False,
    values: bool = False,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Scores:
    """Scores every candidate under the policy, beside what the reference said.

    Args:
      config: the model.
      policy: its parameters and adapter.
      features: image tokens of each view, as the policy sees them.
      prompted: prompts and responses, made ones among them.
      candidates: which responses are read under which views.
      reference: see `reference_scores`.
      image_words: also score what the policy's image tokens alone say.
      sequences: also read the reward head at each candidate's last token.
      values: also read the value head before each of its tokens.
      compute: how the language model is computed.
    """
    params, adapter = policy
    responses = [candidate.response for candidate in candidates]
    bag = rewards = None
    if image_words:
        bag = image_word_log_likelihood(
            params, features, prompted.response_tokens, prompted.scored, candidates
        )
    if sequences:
        # A state of a branch has read what stands before its token; the head reads the end of sequence too.
        prompted = _longer(prompted, compute.length_multiple)
    states = llava.branch_states(params, config, features, *prompted[:4], candidates, adapter, compute)
    if sequences:
        ends = rearrange(prompted.response_mask[:, responses], "b c t -> (b c) t")
        after = jnp.pad(ends[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        flat = rearrange(states, "b c t d -> (b c) t d")
        rewards = reward.rewards(params["reward"], flat, after).reshape(states.shape[:2])
    counted = prompted.scored[:, responses]
    return Scores(
        policy_tokens=_log_probs(params, states, prompted, candidates, compute),
        reference_tokens=None if reference is None else reference.tokens,
        mask=counted,
        changed=None if prompted.changed is None else prompted.changed[:, responses],
        image_words=bag,
        sequences=rewards,
        values=reward.values(params["value"], states) if values else None,
        mean_logits=_mean_logits(params, states, counted),
    )


def _log_probs(
    params: Params,
    states: Float[Array, "b c t d"],
    prompted: Prompted,
    candidates: Sequence[Candidate],
    compute: Compute,
) -> Float[Array, "b c t"]:
    """Log-probabilities of the tokens that the states predict, 0 at padding."""
    responses = [candidate.response for candidate in candidates]
    matrix = llama.output_matrix(params["language"])
    log_probs = chosen_log_probs(matrix, states, prompted.response_tokens[:, responses], compute.target)
    return jnp.where(prompted.response_mask[:, responses], log_probs, 0.0)


def _mean_logits(
    params: Params, states: Float[Array, "b c t d"], counted: Bool[Array, "b c t"]
) -> Float[Array, "b c"]:
    """Means over vocabulary and counted tokens: the mean state by the mean column of the matrix."""
    total = jnp.sum(states.astype(jnp.float32) * counted[..., None], axis=2)
    column = jnp.mean(llama.output_matrix(params["language"]), axis=1, dtype=jnp.float32)
    return jax.lax.stop_gradient(total @ column / jnp.maximum(jnp.sum(counted, axis=2), 1))


def _longer(prompted: Prompted, by: int) -> Prompted:
    """Responses with so many more places of padding."""

    def longer(array: Array) -> Array:
        return jnp.pad(array, ((0, 0), (0, 0), (0, by)))

    return prompted._replace(
        response_tokens=longer(prompted.response_tokens),
        response_mask=longer(prompted.response_mask),
        scored=longer(prompted.scored),
        changed=None if prompted.changed is None else longer(prompted.changed),
    )
