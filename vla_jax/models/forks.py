"""Forks: sequences that read on, a token at a time, from any places of prefixes that are read once.

`read` goes through the prefixes and keeps their keys and values; `step` takes every fork one token further.
A prefix's keys and values are never copied: its forks are so many queries of the same keys.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from vla_jax.models.attention import attention, causal_attention, widened
from vla_jax.models.compute import Compute
from vla_jax.models.llama import LlamaConfig, Mix, apart, rotation, run_layers
from vla_jax.models.lora import Adapter, part
from vla_jax.models.parameters import Params


class Cache(flax.struct.PyTreeNode):
    """Keys and values of a layer, or of all layers as stacks.

    Positions are the keys' last axis: XLA's CPU multiplies a few queries by them seven times as fast.

    Attributes:
      keys: [... g k s], of prefixes [b g k s], of forks [(b f) g k t]: in one axis, or XLA would
        copy them at every token.
      values: [... g s k].
    """

    keys: Float[Array, "*l g k s"]
    values: Float[Array, "*l g s k"]


# Rows up to which a product is summed over parts, on a CPU: of 64, the sum takes three times as long.
_FEW = 16

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
    needed: Int[Array, "b f"],
    adapter: Adapter | None = None,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> tuple[Float[Array, "b f d"], Caches]:
    """Keys and values of whole sequences under causal attention, and hidden states at some of their places.

    Args:
      params: see `llama.table`; their layers stand apart, or are stacks.
      config: the decoder.
      embeddings: inputs; padding on either side of a row.
      positions: rotary position of each.
      seen: False at keys that no query sees: padding, and what is hidden.
      needed: the places whose hidden states are asked for.
      adapter: LoRA adapter of this decoder.
      compute: kernels, and where activations lie.
    """
    compute.check_machine()

    def mixing(attend: Callable[[Array, Array, Array, int], Array]) -> Mix:
        def mix(q: Array, k: Array, v: Array, slides: Bool[Array, ""], past: None) -> tuple[Array, Cache]:
            window = config.sliding_window
            if config.full_layers:
                mixed = jax.lax.cond(slides, lambda: attend(q, k, v, window), lambda: attend(q, k, v, 0))
            else:
                mixed = attend(q, k, v, window)
            return mixed, Cache(rearrange(k, "b s g k -> b g k s"), rearrange(v, "b s g k -> b g s k"))

        return mix

    def everywhere(q: Array, k: Array, v: Array, window: int) -> Array:
        backend, target, tiled = compute.attention, compute.target, compute.platform == "cpu"
        mixed = causal_attention(q, k, v, seen, window=window, backend=backend, target=target, tiled=tiled)
        return jnp.where(_sees_something(seen, window)[..., None, None], mixed, 0)

    def where_needed(q: Array, k: Array, v: Array, window: int) -> Array:
        behind = needed[..., None] - jnp.arange(seen.shape[1])
        near = (behind >= 0) & (behind < (window or seen.shape[1]))
        return attention(q, k, v, near & seen[:, None])

    rotated = rotation(config, positions, end=positions.shape[1])
    return run_layers(
        params,
        config,
        embeddings,
        rotated,
        mixing(everywhere),
        adapter,
        None,
        compute,
        needed,
        mixing(where_needed),
    )


def empty_cache(config: LlamaConfig, forks: Forks, length: int, dtype: DTypeLike) -> Caches:
    """Room for so many own tokens of every fork."""
    shape = (forks.first.size, config.num_kv_heads, config.head_size, length)

    def zeros(*layers: int) -> Cache:
        keys = jnp.zeros((*layers, *shape), dtype)
        return Cache(keys, jnp.zeros((*layers, *shape[:-2], length, config.head_size), dtype))

    if isinstance(forks.prefix, list):
        return [zeros() for _ in range(config.num_layers)]
    return zeros(config.num_layers)


def lengthened(own: Caches, length: int) -> Caches:
    """The forks' caches with room for so many tokens."""
    further = length - _length(own)

    def one(cache: Cache) -> Cache:
        still = [(0, 0)] * (cache.keys.ndim - 2)
        return Cache(
            jnp.pad(cache.keys, [*still, (0, 0), (0, further)]),
            jnp.pad(cache.values, [*still, (0, further), (0, 0)]),
        )

    return [one(cache) for cache in own] if isinstance(own, list) else one(own)


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
      own: keys and values of their tokens so far.
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
    ) -> tuple[Array, Cache]:
        new = Cache(rearrange(k, "b f g k -> (b f) g k 1"), rearrange(v, "b f g k -> (b f) g 1 k"))
        prefix, mine = past[0], _written(past[1], new, place)
        visible, visible_own = seen, seen_own
        if config.sliding_window:
            visible, visible_own = jnp.where(slides, near, seen), jnp.where(slides, near_own, seen_own)
        mixed = _attention(q, prefix, mine, visible, visible_own)
        # What a loop over layers gives back is copied at every token.
        return mixed, mine if isinstance(own, list) else new

    pasts: Any = forks.prefix, own
    if isinstance(own, list):
        pasts = list(zip(*pasts, strict=True))
    rotated = rotation(config, positions, end=forks.key_positions.shape[1] + _length(own))
    states, made = run_layers(params, config, embeddings, rotated, mix, adapter, pasts, compute)
    return states, made if isinstance(own, list) else _written(own, made, place)


def reordered(own: Caches, parents: Int[Array, "b f"]) -> Caches:
    """The forks' caches, each fork going on from the tokens of another (or the same) of its row."""
    rows = len(parents)

    def one(array: Array) -> Array:
        apart = rearrange(array, "... (b f) g x y -> ... b f g x y", b=rows)
        places = parents.reshape(*[1] * (apart.ndim - 5), *parents.shape, 1, 1, 1)
        return rearrange(jnp.take_along_axis(apart, places, axis=-4), "... b f g x y -> ... (b f) g x y")

    return jax.tree.map(one, own)


def written_out(
    params: Params, adapter: Adapter | None, config: LlamaConfig
) -> tuple[Params, Adapter | None]:
    """The decoder and its adapter with one tree a layer."""
    layers = {"layers": apart(params["layers"], config.num_layers)}
    low_rank = part(adapter, "layers")
    if adapter is not None and low_rank is not None:
        adapter = {**adapter, "layers": apart(low_rank, config.num_layers)}
    return {**params, **layers}, adapter


def _sees_something(seen: Bool[Array, "b s"], window: int) -> Bool[Array, "b s"]:
    """Whether there is anything that each place sees, its own key among it."""
    count = jnp.cumsum(seen, axis=1)
    if window:
        count -= jnp.pad(count, [(0, 0), (window, 0)])[:, : seen.shape[1]]
    return count > 0


def _length(own: Caches) -> int:
    return (own[0] if isinstance(own, list) else own).keys.shape[-1]


def _written(cache: Cache, new: Cache, place: Int[Array, ""]) -> Cache:
    put = jax.lax.dynamic_update_slice_in_dim
    return Cache(
        put(cache.keys, new.keys.astype(cache.keys.dtype), place, axis=-1),
        put(cache.values, new.values.astype(cache.values.dtype), place, axis=-2),
    )


def _attention(
    queries: Float[Array, "b f h k"],
    prefix: Cache,
    own: Cache,
    seen: Bool[Array, "b f s"],
    seen_own: Bool[Array, " t"],
) -> Float[Array, "b f h k"]:
    """Each fork's query over its row's prefix and over its own tokens.

    Both parts are exponentiated against one maximum and divided by one sum, so that it is one softmax.
    """
    q, keys, values, own_keys, own_values = widened(queries, prefix.keys, prefix.values, own.keys, own.values)
    lowest = jnp.finfo(jnp.float32).min
    sizes = {"g": keys.shape[1], "r": q.shape[2] // keys.shape[1], "f": q.shape[1]}
    together, alone = "b g (f r)", "(b f) g r"
    q *= q.shape[-1] ** -0.5

    def moved(array: Array, source: str, target: str) -> Array:
        return rearrange(array, f"{source} e -> {target} e", **sizes)

    def queries_as(layout: str) -> Array:
        return rearrange(q, f"b f (g r) k -> {layout} k", g=sizes["g"])

    visible = jnp.repeat(seen, sizes["r"], axis=1)[:, None]
    before = jnp.where(visible, _product(queries_as(together), keys, 2), lowest)
    after = jnp.where(seen_own, _product(queries_as(alone), own_keys, 2), lowest)
    peak = jnp.maximum(moved(before.max(-1, keepdims=True), together, alone), after.max(-1, keepdims=True))
    before, after = jnp.exp(before - moved(peak, alone, together)), jnp.exp(after - peak)
    mixed = moved(_product(before.astype(values.dtype), values, 4), together, alone)
    mixed += _product(after.astype(values.dtype), own_values, 4)
    total = moved(before.sum(-1, keepdims=True), together, alone) + after.sum(-1, keepdims=True)
    return moved(mixed / total, alone, "b f (g r)").astype(queries.dtype)


def _product(few: Float[Array, "*b q c"], many: Float[Array, "*b c n"], parts: int) -> Float[Array, "*b q n"]:
    """In float32, whatever is multiplied.

    XLA's CPU multiplies a few rows, though not one, on a single core, unless products are summed: there the
    product is the sum over so many parts of what it contracts, where they are of one size.
    """
    parts = math.gcd(parts, few.shape[-1])

    def whole(few: Array, many: Array) -> Array:
        return jnp.matmul(few, many, preferred_element_type=jnp.float32)

    def summed(few: Array, many: Array) -> Array:
        few = rearrange(few, "... q (h c) -> ... h q c", h=parts)
        many = rearrange(many, "... (h c) n -> ... h c n", h=parts)
        return whole(few, many).sum(axis=-3)

    if parts == 1 or not 1 < few.shape[-2] <= _FEW:
        return whole(few, many)
    return jax.lax.platform_dependent(few, many, cpu=summed, default=whole)
