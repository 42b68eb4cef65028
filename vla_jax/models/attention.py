"""Attention behind three functions, so that a backend can change without a model knowing.

`attention` takes any mask. `causal_attention` and `branch_attention` take the structures that training needs,
a causal mask with an offset, padding and a window, or branches behind shared prefixes, as numbers, which
kernels can use and masks of booleans cannot.
"""

import operator
from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float

from vla_jax.models.splash import splash_attention
from vla_jax.models.target import Target

# Queries of a block, or a multiple of them where more blocks than so many would be needed.
_QUERIES = 128
_BLOCKS = 16


def attention(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b s g k"],
    values: Float[Array, "b s g k"],
    mask: Bool[Array | np.ndarray, "#b #t s"] | None = None,
) -> Float[Array, "b t h k"]:
    """Scaled dot-product attention, softmax in float32.

    Args:
      queries: [b t h k].
      keys, values: [b s g k]; g divides h, and each key head serves h / g query heads (grouped-query).
      mask: True where a query may see a key; None lets every query see every key. A query that may see
        nothing (padding, say) takes in nothing: zeros.
    """
    q, k, v = _heads_first(queries, keys, values)
    mixed = _positions_first(_mixed(q, k, v, mask), queries)
    return mixed if mask is None else jnp.where(jnp.any(mask, axis=-1)[..., None, None], mixed, 0)


def causal_attention(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b s g k"],
    values: Float[Array, "b s g k"],
    valid: Bool[Array, "b s"],
    *,
    window: int = 0,
    backend: str = "xla",
    target: Target | None = None,
    tiled: bool = False,
) -> Float[Array, "b t h k"]:
    """Attention of the last t of s positions: query i sees valid keys up to s - t + i.

    Args:
      queries: of the last t positions.
      keys, values: of all s positions.
      valid: False at padding. What a query takes in that sees no valid key is not defined.
      window: a query sees this many positions, its own included; 0 sees all before it.
      backend: see `compute.Compute`; "splash" needs t and s in multiples of 128, and "cudnn" half precision.
      target: what the program is compiled for; None is this machine, and one device of it.
      tiled: keys in tiles too ("xla" only): a CPU takes a quarter less time forwards, and a fifth more where
        there is a backward pass.
    """
    if backend == "splash":
        return splash_attention(queries, keys, values, valid, window, target)
    length, total = queries.shape[1], keys.shape[1]
    if backend == "cudnn":
        mask = causal_mask(length, total, window) & valid[:, None]
        return jax.nn.dot_product_attention(queries, keys, values, mask=mask[:, None], implementation="cudnn")
    q, k, v = _heads_first(queries, keys, values)
    # Blocks of queries: keys behind the last of a block are skipped, and its scores stay in cache.
    step = _QUERIES * -(-length // (_QUERIES * _BLOCKS))
    mixed = []
    for start in range(0, length, step):
        end = min(start + step, length)
        last = total - length + end
        visible = causal_mask(end - start, last, window) & valid[:, None, :last]
        block = q[..., start:end, :], k[..., :last, :], v[..., :last, :]
        mixed.append(_mixed(*block, visible, tile=step if tiled else 0))
    return _positions_first(jnp.concatenate(mixed, axis=-2), queries)


def _heads_first(
    queries: Float[Array, "b t h k"], keys: Float[Array, "b s g k"], values: Float[Array, "b s g k"]
) -> tuple[Float[Array, "b g r t k"], Float[Array, "b g s k"], Float[Array, "b g s k"]]:
    """Heads in front of positions: what is multiplied then lies together, which a CPU does much faster."""
    queries, keys, values = widened(queries, keys, values)
    q = rearrange(queries, "b t (g r) k -> b g r t k", g=keys.shape[2])
    k, v = (rearrange(array, "b s g k -> b g s k") for array in (keys, values))
    return q, k, v


def widened(*arrays: Array) -> tuple[Array, ...]:
    """The arrays, in float32 where they are of float16 on a CPU: XLA has no product there that adds up so."""
    if arrays[0].dtype == jnp.float16 and jax.default_backend() == "cpu":
        return tuple(array.astype(jnp.float32) for array in arrays)
    return arrays


def _positions_first(
    mixed: Float[Array, "b g r t k"], queries: Float[Array, "b t h k"]
) -> Float[Array, "b t h k"]:
    """Back to the queries' layout and dtype."""
    return rearrange(mixed, "b g r t k -> b t (g r) k").astype(queries.dtype)


def _mixed(
    q: Float[Array, "b g r t k"],
    k: Float[Array, "b g s k"],
    v: Float[Array, "b g s k"],
    mask: Bool[Array | np.ndarray, "#b #t s"] | None,
    tile: int = 0,
) -> Float[Array, "b g r t k"]:
    """Attention with its softmax in float32, divided by its sum after the values are added up.

    Keys may come in tiles of so many (0: all at once). It is one softmax all the same: the maximum is that of
    all tiles.
    """
    repeats, rows = q.shape[2], rearrange(q, "b g r t k -> b g (r t) k")
    if mask is not None and repeats > 1 and mask.shape[1] > 1:
        mask = jnp.tile(mask, (1, repeats, 1))

    def scored(part: slice) -> Array:
        scores = jnp.einsum("bgtk,bgsk->bgts", rows, k[:, :, part], preferred_element_type=jnp.float32)
        scores *= q.shape[-1] ** -0.5
        if mask is None:
            return scores
        # Added, not chosen: XLA's CPU then makes one kernel of products and softmax.
        return scores + jnp.where(mask[:, None, :, part], 0.0, jnp.finfo(jnp.float32).min)

    size = tile or k.shape[2]
    parts = [slice(first, first + size) for first in range(0, k.shape[2], size)]
    scores = [scored(part) for part in parts]
    peak = reduce(jnp.maximum, [each.max(axis=-1, keepdims=True) for each in scores])
    weights = [jnp.exp(each - jax.lax.stop_gradient(peak)) for each in scores]
    total = reduce(operator.add, [each.sum(axis=-1, keepdims=True) for each in weights])
    summed = [_summed(each, v[:, :, part]) for each, part in zip(weights, parts, strict=True)]
    return rearrange(reduce(operator.add, summed) / total, "b g (r t) k -> b g r t k", r=repeats)


def branch_attention(
    queries: Float[Array, "b c t h k"],
    prefix: tuple[Float[Array, "b v s g k"], Float[Array, "b v s g k"]],
    own: tuple[Float[Array, "b c t g k"], Float[Array, "b c t g k"]],
    prefix_valid: Bool[Array, "b s"],
    own_valid: Bool[Array, "b c t"],
    views: Sequence[int],
    *,
    window: int = 0,
    backend: str = "xla",
    target: Target | None = None,
) -> Float[Array, "b c t h k"]:
    """Attention of branches: each query sees the prefix that its branch follows, and its branch up to itself.

    Args:
      queries: of every branch.
      prefix: keys and values of the shared prefixes.
      own: keys and values of the branches, which stand right behind their prefixes.
      prefix_valid, own_valid: False at padding.
      views: which prefix each branch follows.
      window, backend, target: see `causal_attention`.
    """
    if backend == "xla":
        return _folded(queries, prefix, own, prefix_valid, own_valid, views, window)
    count, start = len(views), prefix_valid.shape[1]

    def joined(shared: Array, mine: Array) -> Array:
        followed = jnp.stack([shared[:, view] for view in views], axis=1)
        return rearrange(jnp.concatenate([followed, mine], axis=2), "b c s g k -> (b c) s g k")

    rows = jnp.broadcast_to(prefix_valid[:, None], (len(prefix_valid), count, start))
    valid = rearrange(jnp.concatenate([rows, own_valid], axis=2), "b c s -> (b c) s")
    keys, values = (joined(shared, mine) for shared, mine in zip(prefix, own, strict=True))
    flat = rearrange(queries, "b c t h k -> (b c) t h k")
    mixed = causal_attention(flat, keys, values, valid, window=window, backend=backend, target=target)
    return rearrange(mixed, "(b c) t h k -> b c t h k", c=count)


def _folded(
    queries: Float[Array, "b c t h k"],
    prefix: tuple[Float[Array, "b v s g k"], Float[Array, "b v s g k"]],
    own: tuple[Float[Array, "b c t g k"], Float[Array, "b c t g k"]],
    prefix_valid: Bool[Array, "b s"],
    own_valid: Bool[Array, "b c t"],
    views: Sequence[int],
    window: int,
) -> Float[Array, "b c t h k"]:
    """`branch_attention` without a copy of any prefix; views that as many branches follow go together."""
    followers = {view: [c for c, followed in enumerate(views) if followed == view] for view in set(views)}
    mixed: dict[int, Array] = {}
    for count in {len(branches) for branches in followers.values()}:
        shown = [view for view, branches in followers.items() if len(branches) == count]
        order = [branch for view in shown for branch in followers[view]]

        def grouped(array: Array, order: list[int] = order, count: int = count) -> Array:
            return rearrange(_picked(array, order), "b (v m) ... -> b v m ...", m=count)

        made = _folded_group(
            grouped(queries),
            [_picked(array, shown) for array in prefix],
            [grouped(array) for array in own],
            prefix_valid,
            grouped(own_valid),
            window,
        )
        mixed |= {branch: made[:, i // count, i % count] for i, branch in enumerate(order)}
    return jnp.stack([mixed[branch] for branch in range(len(views))], axis=1)


def _folded_group(
    queries: Float[Array, "b v m t h k"],
    prefix: Sequence[Float[Array, "b v s g k"]],
    own: Sequence[Float[Array, "b v m t g k"]],
    prefix_valid: Bool[Array, "b s"],
    own_valid: Bool[Array, "b v m t"],
    window: int,
) -> Float[Array, "b v m t h k"]:
    """m branches behind each of v prefixes: as queries of a prefix they are one, among themselves apart.

    Both parts are exponentiated against one maximum and divided by one sum, so that it is one softmax.
    """
    rows, shown, count, length, heads, _ = queries.shape
    sizes = {"b": rows, "v": shown, "m": count, "g": prefix[0].shape[3], "r": heads // prefix[0].shape[3]}
    start = prefix_valid.shape[1]
    near = start + np.arange(length)[:, None] - np.arange(start) < (window or start + length)
    together, apart = "(b v) g (m r t)", "(b v m) g (r t)"

    def weigh(layout: str, keys: Array, visible: Array | np.ndarray) -> Array:
        q = rearrange(queries, f"b v m t (g r) k -> {layout} k", g=sizes["g"])
        scores = jnp.einsum("bgtk,bgsk->bgts", q, keys, preferred_element_type=jnp.float32)
        return jnp.where(visible, scores * q.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)

    def moved(array: Array, source: str, target: str) -> Array:
        return rearrange(array, f"{source} k -> {target} k", **{name: sizes[name] for name in "bmr"})

    near_valid = rearrange(near & prefix_valid[:, None], "b t s -> b 1 1 1 t s")
    seen = jnp.broadcast_to(near_valid, (rows, shown, count, sizes["r"], length, start))
    before = weigh(
        together,
        rearrange(prefix[0], "b v s g k -> (b v) g s k"),
        rearrange(seen, "b v m r t s -> (b v) 1 (m r t) s"),
    )
    own_seen = causal_mask(length, length, window) & rearrange(own_valid, "b v m t -> (b v m) 1 1 1 t")
    earlier = jnp.broadcast_to(own_seen, (len(own_seen), 1, sizes["r"], length, length))
    after = weigh(
        apart,
        rearrange(own[0], "b v m t g k -> (b v m) g t k"),
        rearrange(earlier, "b g r t s -> b g (r t) s"),
    )
    peaks = before.max(-1, keepdims=True), moved(after.max(-1, keepdims=True), apart, together)
    peak = jax.lax.stop_gradient(jnp.maximum(*peaks))
    before, after = jnp.exp(before - peak), jnp.exp(after - moved(peak, together, apart))

    def taken(weights: Array, values: Array, layout: str) -> tuple[Array, Array]:
        mixed = _summed(weights, values)
        total = weights.sum(-1, keepdims=True)
        return moved(mixed, layout, "b v m t (g r)"), moved(total, layout, "b v m t (g r)")

    shared, shared_sum = taken(before, rearrange(prefix[1], "b v s g k -> (b v) g s k"), together)
    mine, my_sum = taken(after, rearrange(own[1], "b v m t g k -> (b v m) g t k"), apart)
    return ((shared + mine) / (shared_sum + my_sum)).astype(queries.dtype)


def _summed(weights: Float[Array, "b g t s"], values: Float[Array, "b g s k"]) -> Float[Array, "b g t k"]:
    """Weights not yet divided by their sum, by values: float32, since half precision may not hold it."""
    return jnp.einsum(
        "bgts,bgsk->bgtk", weights.astype(values.dtype), values, preferred_element_type=jnp.float32
    )


def _picked(array: Float[Array, "b c *e"], order: Sequence[int]) -> Float[Array, "b d *e"]:
    """Some of the second axis, in this order."""
    if list(order) == list(range(array.shape[1])):
        return array
    return jnp.stack([array[:, i] for i in order], axis=1)


def causal_mask(queries: int, keys: int, window: int = 0) -> Bool[np.ndarray, "t s"]:
    """True where one of the last `queries` of `keys` positions sees a key, without regard to padding."""
    behind = np.arange(keys - queries, keys)[:, None] - np.arange(keys)
    return (behind >= 0) & (behind < (window or keys))
