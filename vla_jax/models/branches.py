"""Branches that read on from shared prefixes, so that a prefix is computed once however many follow it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from vla_jax.models.attention import causal_attention
from vla_jax.models.compute import Compute
from vla_jax.models.llama import LlamaConfig, run_layers
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
    compute.check_machine(jax.default_backend())
    (rows, shared, start, _), (_, count, length, _) = prefixes.shape, responses.shape
    split = shared * start
    # All of a row's tokens side by side: linear layers and norms need not know what belongs together.
    tokens = jnp.concatenate(
        [rearrange(prefixes, "b v s d -> b (v s) d"), rearrange(responses, "b c t d -> b (c t) d")], axis=1
    )
    place = jnp.maximum(jnp.cumsum(prefix_valid, axis=1) - 1, 0)
    following = prefix_valid.sum(axis=1)[:, None] + jnp.arange(length)
    positions = jnp.concatenate([jnp.tile(place, (1, shared)), jnp.tile(following, (1, count))], axis=1)
    shared_valid = jnp.repeat(prefix_valid, shared, axis=0)
    own_valid = jnp.concatenate(
        [
            jnp.broadcast_to(prefix_valid[:, None], (rows, count, start)),
            response_valid,
        ],
        axis=2,
    )
    own_valid = rearrange(own_valid, "b c s -> (b c) s")

    def mix(q: Array, k: Array, v: Array, slides: Bool[Array, ""], past: None) -> tuple[Array, None]:
        def parts(x: Array) -> tuple[Array, Array]:
            return (
                rearrange(x[:, :split], "b (v s) h k -> b v s h k", v=shared),
                rearrange(x[:, split:], "b (c t) h k -> b c t h k", c=count),
            )

        def joined(x: tuple[Array, Array]) -> Array:
            followed = jnp.stack([x[0][:, view] for view in views], axis=1)
            return rearrange(jnp.concatenate([followed, x[1]], axis=2), "b c s h k -> (b c) s h k")

        q_parts, k_parts, v_parts = parts(q), parts(k), parts(v)

        def attend(window: int) -> Array:
            q, k, v = (rearrange(x[0], "b v s h k -> (b v) s h k") for x in (q_parts, k_parts, v_parts))
            first = causal_attention(q, k, v, shared_valid, window=window, backend=compute.attention)
            own = rearrange(q_parts[1], "b c t h k -> (b c) t h k")
            second = causal_attention(
                own, joined(k_parts), joined(v_parts), own_valid, window=window, backend=compute.attention
            )
            return jnp.concatenate(
                [
                    rearrange(first, "(b v) s h k -> b (v s) h k", v=shared),
                    rearrange(second, "(b c) t h k -> b (c t) h k", c=count),
                ],
                axis=1,
            )

        if config.full_layers:
            return jax.lax.cond(slides, lambda: attend(config.sliding_window), lambda: attend(0)), None
        return attend(config.sliding_window), None

    states, _ = run_layers(params, config, tokens, positions, mix, adapter, None, compute)
    return rearrange(states[:, split:], "b (c t) d -> b c t d", c=count)
