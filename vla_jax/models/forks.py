"""Forks: sequences that read on, a token at a time, from any places of prefixes that are read once.

`read` goes through the prefixes and keeps their keys and values; `step` takes every fork one token further.
A prefix's keys and values are never copied: its forks are so many queries of the same keys.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from vla_jax.models.attention import causal_attention, widened
from vla_jax.models.compute import Compute
from vla_jax.models.llama import LlamaConfig, apart, rotation, run_layers
from vla_jax.models.lora import Adapter, part
from vla_jax.models.parameters import Params


class Cache(flax.struct.PyTreeNode):
    """Keys and values of a layer, or of all layers as stacks.

    Positions are the keys' last axis: XLA's CPU multiplies a few queries by them seven times as fast.

    Attributes:
      keys: [... g k s], of prefixes [b g k s], of forks [b f g k t].
      values: [... g s k].
    """

    keys: Float[Array, "*l g k s"]
    values: Float[Array, "*l g s k"]


# One a layer where layers are written out, else one of stacks.
Caches = Cache | list[Cache]


class Forks(flax.struct.PyTreeNode):
    """What does not change while forks read on.

    Attributes:
      prefix: keys and values of the prefixes [b g k s].
      key_positions: rotary positions of the prefixes' tokens.
      seen: which places of its row's prefix each fork sees, without regard to windows.
      first: the position of each fork's first own token.
    """

    prefix: Caches
    key_positions: Int[Array, "b s"]
    seen: Bool[Array, "b f s"]
    first: Int[Array, "b f"]


def read(
    params: Params,
    config: LlamaConfig,
    embeddings: Float[Array, "b s d"],
    positions: Int[Array, "b s"],
    seen: Bool[Array, "b s"],
    adapter: Adapter | None = None,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> tuple[Float[Array, "b s d"], Caches]:
    """Hidden states of whole sequences under causal attention, and their keys and values.

    Args:
      params: see `llama.table`; their layers stand apart, or are stacks.
      config: the decoder.
      embeddings: inputs; padding on either side of a row.
      positions: rotary position of each.
      seen: False at keys that no query sees: padding, and what is hidden.
      adapter: LoRA adapter of this decoder.
      compute: kernels, and where activations lie.
    """
    compute.check_machine()

    def mix(q: Array, k: Array, v: Array, slides: Bool[Array, ""], past: None) -> tuple[Array, Cache]:
        def attend(window: int) -> Array:
            return causal_attention(
                q, k, v, seen, window=window, backend=compute.attention, target=compute.target
            )

        if config.full_layers:
            mixed = jax.lax.cond(slides, lambda: attend(config.sliding_window), lambda: attend(0))
        else:
            mixed = attend(config.sliding_window)
        return mixed, Cache(rearrange(k, "b s g k -> b g k s"), rearrange(v, "b s g k -> b g s k"))

    states, made = run_layers(
        params, config, embeddings, rotation(config, positions), mix, adapter, None, compute
    )
    return states, made


def empty_cache(config: LlamaConfig, forks: Forks, length: int, dtype: DTypeLike) -> Caches:
    """Room for so many own tokens of every fork."""
    rows, count = forks.first.shape
    shape = (rows, count, config.num_kv_heads, config.head_size, length)

    def zeros(*layers: int) -> Cache:
        keys = jnp.zeros((*layers, *shape), dtype)
        return Cache(keys, jnp.zeros((*layers, *shape[:-2], length, config.head_size), dtype))

    if isinstance(forks.prefix, list):
        return [zeros() for _ in range(config.num_layers)]
    return zeros(config.num_layers)


def step(
    params: Params,
    config: LlamaConfig,
    embeddings: Float[Array, "b f d"],
    forks: Forks,
    own: Caches,
    place: Int[Array, ""],
    adapter: Adapter | None = None,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> tuple[Float[Array, "b f d"], Caches]:
    """Hidden states of one more token of every fork, and their caches with it written in.

    Args:
      params, adapter: as given to `read`.
      config: the decoder.
      embeddings: of each fork's token.
      forks: what they read on from.
      own: keys and values of their tokens so far, zeros from `place` on.
      place: how many those are.
      compute: where activations lie.
    """
    positions = forks.first + place
    behind = place - jnp.arange(_length(own))
    seen, seen_own = forks.seen, behind >= 0
    if config.sliding_window:
        distance = positions[:, :, None] - forks.key_positions[:, None]
        near = seen & (distance < config.sliding_window)
        near_own = seen_own & (behind < config.sliding_window)

    def mix(
        q: Array, k: Array, v: Array, slides: Bool[Array, ""], past: tuple[Cache, Cache]
    ) -> tuple[Array, tuple[Array, Array]]:
        visible, visible_own = seen, seen_own
        if config.sliding_window:
            visible, visible_own = jnp.where(slides, near, seen), jnp.where(slides, near_own, seen_own)
        return _attention(q, (k, v), *past, visible, visible_own, place), (k, v)

    pasts: Any = forks.prefix, own
    if isinstance(own, list):
        pasts = list(zip(*pasts, strict=True))
    states, made = run_layers(
        params, config, embeddings, rotation(config, positions), mix, adapter, pasts, compute
    )

    def written(cache: Cache, key: Array, value: Array) -> Cache:
        put = jax.lax.dynamic_update_slice_in_dim
        return Cache(
            put(cache.keys, key[..., None].astype(cache.keys.dtype), place, axis=-1),
            put(cache.values, value[..., None, :].astype(cache.values.dtype), place, axis=-2),
        )

    if isinstance(own, list):
        return states, [written(cache, *new) for cache, new in zip(own, made, strict=True)]
    return states, written(own, *made)


def written_out(
    params: Params, adapter: Adapter | None, config: LlamaConfig
) -> tuple[Params, Adapter | None]:
    """The decoder and its adapter with one tree a layer."""
    layers = {"layers": apart(params["layers"], config.num_layers)}
    low_rank = part(adapter, "layers")
    if adapter is not None and low_rank is not None:
        adapter = {**adapter, "layers": apart(low_rank, config.num_layers)}
    return {**params, **layers}, adapter


def _length(own: Caches) -> int:
    return (own[0] if isinstance(own, list) else own).keys.shape[-1]


def _attention(
    queries: Float[Array, "b f h k"],
    itself: tuple[Float[Array, "b f g k"], Float[Array, "b f g k"]],
    prefix: Cache,
    own: Cache,
    seen: Bool[Array, "b f s"],
    seen_own: Bool[Array, " t"],
    place: Int[Array, ""],
) -> Float[Array, "b f h k"]:
    """Each fork's query over its row's prefix, its own tokens so far, and its token `itself`.

    The three are exponentiated against one maximum and divided by one sum, so that it is one softmax.
    """
    q, key, value, keys, values, own_keys, own_values = widened(
        queries, *itself, prefix.keys, prefix.values, own.keys, own.values
    )
    groups, lowest = key.shape[2], jnp.finfo(jnp.float32).min
    q = rearrange(q, "b f (g r) k -> b f g r k", g=groups) * q.shape[-1] ** -0.5
    repeats = q.shape[3]
    together = rearrange(q, "b f g r k -> b g (f r) k")
    before = _product("bgqk,bgks->bgqs", together, keys)
    visible = jnp.repeat(seen, repeats, axis=1)[:, None]
    before = jnp.where(visible, before, lowest)
    after = _product("bfgrk,bfgkt->bfgrt", q, own_keys)
    # Its own key is not written yet; the zeros at its place add nothing.
    present = _product("bfgrk,bfgk->bfgr", q, key)[..., None]
    here = jnp.arange(after.shape[-1]) == place
    after = jnp.where(seen_own, jnp.where(here, present, after), lowest)

    def apart(array: Array) -> Array:
        return rearrange(array, "b g (f r) e -> b f g r e", r=repeats)

    peak = jnp.maximum(apart(before.max(-1, keepdims=True)), after.max(-1, keepdims=True))
    before = jnp.exp(before - rearrange(peak, "b f g r e -> b g (f r) e"))
    after = jnp.exp(after - peak)
    mixed = apart(_product("bgqs,bgsk->bgqk", before.astype(values.dtype), values))
    mixed += _product("bfgrt,bfgtk->bfgrk", after.astype(values.dtype), own_values)
    mixed += jnp.exp(present - peak) * value[:, :, :, None].astype(jnp.float32)
    total = apart(before.sum(-1, keepdims=True)) + after.sum(-1, keepdims=True)
    return rearrange(mixed / total, "b f g r k -> b f (g r) k").astype(queries.dtype)


def _product(dimensions: str, *factors: Array) -> Array:
    """In float32, whatever is multiplied."""
    return jnp.einsum(dimensions, *factors, preferred_element_type=jnp.float32)
