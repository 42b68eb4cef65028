"""The plain forward: one full sequence per candidate, nothing shared but the image features."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models import llava
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params

# Completion tokens whose logits exist at one time: 4096 x 32k words in float32 are half a gigabyte.
_CHUNK = 4096


def token_log_probs(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    features: Float[Array, "b v n d"],
    prefix_tokens: Int[Array, "b s"],
    prefix_mask: Bool[Array, "b s"],
    response_tokens: Int[Array, "b r t"],
    response_mask: Bool[Array, "b r t"],
    candidates: Sequence[tuple[int, int]],
) -> Float[Array, "b c t"]:
    """Log-probability of every response token of every candidate.

    Args:
      params: the model's parameters.
      adapter: its LoRA adapter; None scores the base model.
      config: the model.
      features: image tokens of each view.
      prefix_tokens, prefix_mask: prompts with expanded image placeholders, left-padded.
      response_tokens, response_mask: responses, right-padded.
      candidates: (view, response) index pairs.

    Returns:
      Float32 log-probabilities, 0 at padding.
    """
    views, responses = map(list, zip(*candidates, strict=True))
    count, start = len(candidates), prefix_tokens.shape[1]

    def join(prefix: Array, response: Array) -> Array:
        prefixes = jnp.broadcast_to(prefix[:, None], (prefix.shape[0], count, start))
        return rearrange(jnp.concatenate([prefixes, response[:, responses]], axis=2), "b c t -> (b c) t")

    states = llava.hidden_states(
        params,
        config,
        join(prefix_tokens, response_tokens),
        join(prefix_mask, response_mask),
        rearrange(features[:, views], "b c n d -> (b c) n d"),
        adapter,
    )
    # The first response token is predicted at the prefix's last position.
    predicting = rearrange(states[:, start - 1 : -1], "(b c) t d -> b c t d", c=count)
    log_probs = _chosen_log_probs(params, predicting, response_tokens[:, responses])
    return jnp.where(response_mask[:, responses], log_probs, 0.0)


def _chosen_log_probs(
    params: Params, states: Float[Array, "b c t d"], targets: Int[Array, "b c t"]
) -> Float[Array, "b c t"]:
    """log softmax at the targets, in chunks, so that no [tokens, vocabulary] array exists whole."""

    def one(inputs: tuple[Float[Array, " d"], Int[Array, ""]]) -> Float[Array, ""]:
        state, target = inputs
        logits = llava.logits(params, state)
        return logits[target] - jax.nn.logsumexp(logits)

    flat = rearrange(states, "b c t d -> (b c t) d"), rearrange(targets, "b c t -> (b c t)")
    if flat[1].size <= _CHUNK:
        log_probs = jax.vmap(one)(flat)
    else:
        log_probs = jax.lax.map(jax.checkpoint(one), flat, batch_size=_CHUNK)
    return log_probs.reshape(targets.shape)
