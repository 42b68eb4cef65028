"""Branches that read on from shared prefixes, so that a prefix is computed once however many follow it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from vla_jax.models.attention import branch_attention, causal_attention
from vla_jax.models.compute import Compute
from vla_jax.models.llama import LlamaConfig, rotation, run_layers
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params


def branches(
    params: Params,
    config: LlamaConfig,
    prefixes: Float[Array, "b v s d"],
    prefix_valid: Bool[Array, "b s"],
    responses: Float[Array, "b c t d"],
    response_valid: Bool[Array, "b c t"],
    views: Sequence[int],
    adapter: Adapter | None = None,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Float[Array, "b c t d"]:
    """Hidden states of branches, each reading on where one of a few shared prefixes ends.

    A prefix goes through the layers once, however many branches follow it. A branch sees its prefix and
    itself, and its positions go on where the prefix ends.

    Args:
      params: see `table`.
      config: the decoder.
      prefixes: embeddings of what is shared, v of them in a row, left-padded alike.
      prefix_valid: False at their padding.
      responses: embeddings of the branches, right-padded.
      response_valid: False at their padding.
      views: which prefix each of the c branches follows.
      adapter: LoRA adapter of this decoder.
      compute: kernels, and what the backward pass keeps.
    """
    compute.check_machine()
    (shared, start), (count, length) = prefixes.shape[1:3], responses.shape[1:3]
    split = shared * start
    # All of a row's tokens side by side: linear layers and norms need not know what belongs together.
    tokens = jnp.concatenate(
        [rearrange(prefixes, "b v s d -> b (v s) d"), rearrange(responses, "b c t d -> b (c t) d")], axis=1
    )
    place = jnp.maximum(jnp.cumsum(prefix_valid, axis=1) - 1, 0)
    following = prefix_valid.sum(axis=1)[:, None] + jnp.arange(length)
    positions = jnp.concatenate([jnp.tile(place, (1, shared)), jnp.tile(following, (1, count))], axis=1)
    shared_valid = jnp.repeat(prefix_valid, shared, axis=0)

    def mix(q: Array, k: Array, v: Array, slides: Bool[Array, ""], past: None) -> tuple[Array, None]:
        asked = q.shape[1] - count * length  # of the prefixes; none in the last layer

        def attend(window: int) -> Array:
            how: Any = {"window": window, "backend": compute.attention, "target": compute.target}
            prefix, own = ((_apart(k[:, places], n), _apart(v[:, places], n)) for places, n in parts)
            second = branch_attention(
                _apart(q[:, asked:], count), prefix, own, prefix_valid, response_valid, views, **how
            )
            mixed = [rearrange(second, "b c t h k -> b (c t) h k")]
            if asked:
                queries, keys, values = (
                    rearrange(x, "b v s h k -> (b v) s h k") for x in (_apart(q[:, :asked], shared), *prefix)
                )
                first = causal_attention(queries, keys, values, shared_valid, **how)
                mixed.insert(0, rearrange(first, "(b v) s h k -> b (v s) h k", v=shared))
            return jnp.concatenate(mixed, axis=1)

        if config.full_layers:
            return jax.lax.cond(slides, lambda: attend(config.sliding_window), lambda: attend(0)), None
        return attend(config.sliding_window), None

    parts = ((slice(0, split), shared), (slice(split, None), count))
    rotated = rotation(config, positions, end=start + length)
    states, _ = run_layers(params, config, tokens, rotated, mix, adapter, None, compute, needed=split)
    return _apart(states, count)


def _apart(x: Float[Array, "b ct *e"], count: int) -> Float[Array, "b c t *e"]:
    """A row's tokens by the sequences they belong to."""
    return rearrange(x, "b (c t) ... -> b c t ...", c=count)
