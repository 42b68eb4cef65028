"""How far two models are apart at every token, over the whole vocabulary and a chunk of tokens at a time."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.models import llama, llava
from vla_jax.models.compute import Compute
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.target import Target
from vla_jax.scoring.scores import Candidate, Model, Prompted
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


def reference_divergences(
    config: LlavaConfig,
    reference: Model,
    policy: Model,
    features: tuple[Float[Array, "b v n d"], Float[Array, "b v n d"]],
    prompted: Prompted,
    candidates: Sequence[Candidate],
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Float[Array, "b c t"]:
    """KL(reference || policy) at every token of every candidate, 0 at padding; held constant.

    Args:
      config: both models.
      reference, policy: their parameters and adapters.
      features: image tokens of each view, as the reference and as the policy see them.
      prompted: prompts and responses.
      candidates: which responses are read under which views.
      compute: how the language models are computed.
    """

    def predicting(model: Model, seen: Array) -> tuple[Array, Array]:
        params, adapter = model
        states = llava.branch_states(params, config, seen, *prompted[:4], candidates, adapter, compute)
        return llama.output_matrix(params["language"]), states

    apart = divergences(*predicting(reference, features[0]), *predicting(policy, features[1]), compute.target)
    present = prompted.response_mask[:, [candidate.response for candidate in candidates]]
    return jax.lax.stop_gradient(jnp.where(present, apart, 0.0))
