"""Prefill once, then decode token by token from the cache."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vla_jax.models import llama, llava
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter, part
from vla_jax.models.parameters import Params


class Sampled(NamedTuple):
    """Sampled responses, right-padded.

    Attributes:
      tokens: ids, the end of sequence included where it was reached.
      mask: True at tokens that were sampled.
      log_probs: float32 log-probability of each sampled token at temperature 1, 0 elsewhere.
    """

    tokens: Int[Array, "b t"]
    mask: Bool[Array, "b t"]
    log_probs: Float[Array, "b t"]


@partial(jax.jit, static_argnames=("config", "max_new_tokens", "end_ids", "temperature"))
def sample(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    features: Float[Array, "b n d"],
    prefix_tokens: Int[Array, "b s"],
    prefix_mask: Bool[Array, "b s"],
    *,
    max_new_tokens: int,
    end_ids: tuple[int, ...],
    temperature: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> Sampled:
    """One response a prompt; ends early when every row has reached the end of sequence.

    Args:
      params, adapter, config: the model.
      features: image tokens of each row.
      prefix_tokens, prefix_mask: prompts with expanded image placeholders, left-padded.
      max_new_tokens: t, the longest response.
      end_ids: the tokens that end a response; with none of them every response has its full length.
      temperature: 0 takes the likeliest token, else samples from softmax(logits / temperature).
      key: needed where temperature is above 0.

    Raises:
      ValueError: where temperature is negative, or above 0 without a key.
    """
    if temperature < 0 or (temperature > 0 and key is None):
        raise ValueError(f"sample: {temperature=} must be 0, or positive with a key")
    rows, start = prefix_tokens.shape
    total = start + max_new_tokens
    dtype = params["language"]["embedding"].dtype
    cache = llama.empty_cache(config.language, rows, total, dtype)
    states, cache = llava.prefill(params, config, prefix_tokens, prefix_mask, features, cache, adapter)
    seen = jnp.pad(prefix_mask, ((0, 0), (0, max_new_tokens)))
    length = prefix_mask.sum(axis=1)

    def choose(state: Float[Array, "b d"], step: Int[Array, ""]) -> tuple[Array, Array]:
        logits = llava.logits(params, state)
        if temperature == 0:
            token = jnp.argmax(logits, axis=-1)
        else:
            assert key is not None
            token = jax.random.categorical(jax.random.fold_in(key, step), logits / temperature)
        log_probs = jax.nn.log_softmax(logits)
        return token.astype(jnp.int32), jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]

    def ends(token: Int[Array, " b"]) -> Bool[Array, " b"]:
        return jnp.isin(token, jnp.array(end_ids, jnp.int32))

    def write(out: Sampled, step: Array, token: Array, log_prob: Array, alive: Array) -> Sampled:
        return Sampled(
            out.tokens.at[:, step].set(jnp.where(alive, token, 0)),
            out.mask.at[:, step].set(alive),
            out.log_probs.at[:, step].set(jnp.where(alive, log_prob, 0.0)),
        )

    def decode(carry: tuple) -> tuple:
        step, token, alive, seen, cache, out = carry
        seen = seen.at[:, start + step].set(True)
        states, cache = llama.forward(
            params["language"],
            config.language,
            llava.embed(params, config, token[:, None], None),
            (length + step)[:, None],
            seen[:, None, :],
            part(adapter, "language"),
            cache,
            start + step,
            llava.positions(seen),
        )
        token, log_prob = choose(states[:, 0], step + 1)
        out = write(out, step + 1, token, log_prob, alive)
        return step + 1, token, alive & ~ends(token), seen, cache, out

    empty = Sampled(
        jnp.zeros((rows, max_new_tokens), jnp.int32),
        jnp.zeros((rows, max_new_tokens), bool),
        jnp.zeros((rows, max_new_tokens), jnp.float32),
    )
    first, log_prob = choose(states[:, -1], jnp.int32(0))
    out = write(empty, jnp.int32(0), first, log_prob, jnp.ones(rows, bool))
    carry = (jnp.int32(0), first, ~ends(first), seen, cache, out)

    def going(carry: tuple) -> Bool[Array, ""]:
        return (carry[0] + 1 < max_new_tokens) & jnp.any(carry[2])

    return jax.lax.while_loop(going, decode, carry)[-1]
