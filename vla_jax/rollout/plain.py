"""The plain reference of the sampler: at every step, every sequence is read anew from its beginning.

Nothing samples with it; tests hold the sampler to it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models import llama, llava
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter, part
from vla_jax.models.parameters import Params


@partial(jax.jit, static_argnames="config")
def plain_logits(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    features: Float[Array, "b n d"] | None,
    tokens: Int[Array, "b t"],
    mask: Bool[Array, "b t"],
    keep: Bool[Array, "b t"] | None = None,
) -> Float[Array, "b t w"]:
    """Float32 logits of the token after every place of whole sequences; nothing is kept from call to call.

    Args:
      params, adapter, config: the model.
      features: image tokens of each row.
      tokens, mask: ids with expanded image placeholders, and where they are not padding.
      keep: False hides a key from every query; positions do not change.
    """
    length = tokens.shape[1]
    seen = mask if keep is None else mask & keep
    states, _ = llama.forward(
        params["language"],
        config.language,
        llava.embed(params, config, tokens, features),
        llava.positions(mask),
        jnp.tril(jnp.ones((length, length), bool)) & seen[:, None],
        part(adapter, "language"),
    )
    return llava.logits(params, states)


def plain_greedy(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    features: Float[Array, "b n d"] | None,
    tokens: Int[Array, "b s"],
    mask: Bool[Array, "b s"],
    steps: int,
    keep: Bool[Array, "b s"] | None = None,
) -> Int[Array, "b t"]:
    """The `steps` likeliest next tokens of left-padded prompts, each from a whole forward."""
    room = ((0, 0), (0, steps))
    start = tokens.shape[1]
    tokens, mask = jnp.pad(tokens, room), jnp.pad(mask, room)
    kept = None if keep is None else jnp.pad(keep, room, constant_values=True)
    for place in range(start, start + steps):
        logits = plain_logits(params, adapter, config, features, tokens, mask, kept)
        tokens = tokens.at[:, place].set(logits[:, place - 1].argmax(-1).astype(tokens.dtype))
        mask = mask.at[:, place].set(True)
    return tokens[:, start:]
