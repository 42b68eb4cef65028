"""Responses token by token, as forks of sequences that have been read."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vla_jax.models import forks, llava
from vla_jax.models.compute import Compute
from vla_jax.models.forks import Caches, Forks
from vla_jax.models.llama import apart
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter, part
from vla_jax.models.parameters import Params
from vla_jax.rollout.choosing import Sampling, choose, ended, remembered
from vla_jax.rollout.prefilling import Prefilled

# (tokens [b f], the forks' caches, how many tokens they hold) -> logits [b f w], the caches.
Advance = Callable[[Array, Caches, Array], tuple[Array, Caches]]

# Tokens; see `_rooms`.
_LEAST_ROOM = 64


class Sampled(NamedTuple):
    """Sampled responses, right-padded; f forks, or k responses of a prompt.

    Attributes:
      tokens: ids, what ended the response included where it was reached.
      mask: True at tokens that were sampled.
      log_probs: float32 log-probability of each sampled token at temperature 1, 0 elsewhere.
    """

    tokens: Int[Array, "b f t"]
    mask: Bool[Array, "b f t"]
    log_probs: Float[Array, "b f t"]


class _Loop(NamedTuple):
    """What goes from token to token; `step` of them are written."""

    step: Int[Array, ""]
    last: Int[Array, "b f m"]
    alive: Bool[Array, "b f"]
    logits: Float[Array, "b f w"]
    own: Caches
    out: Sampled


@partial(jax.jit, static_argnames=("config", "sampling", "count", "compute"))
def decode(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    prefilled: Prefilled,
    sampling: Sampling,
    key: Key[Array, ""] | Key[Array, "b n"] | None = None,
    count: int = 1,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Sampled:
    """Responses that begin in sequences that have been read; ends early when all have ended.

    All forks of a row look at the row's one cache, each at the places before its start, and each has a small
    cache of its own. What a fork says does not depend on the others, nor on what stands behind its start.

    Args:
      params, adapter, config: the model that `prefilled` comes from.
      prefilled: see `prefill`.
      sampling: how tokens are chosen, and when a response ends.
      key: needed where there is a temperature: one for all, or one for each of a row's n = f count responses,
        whose tokens then do not depend on what else is in the batch.
      count: responses from each start, side by side: [b (f count) t].
      compute: where activations lie, and whether layers are written out; they are where `prefill` did so.

    Raises:
      ValueError: where there is a temperature and no key, or not a key for each response.
    """
    rooms = _rooms(sampling.max_new_tokens)
    logits, own, advance = begin(params, adapter, config, prefilled, count, rooms[0], compute)

    def going_until(end: int) -> Callable[[_Loop], Bool[Array, ""]]:
        return lambda loop: (loop.step < end) & jnp.any(loop.alive)

    def chosen(loop: _Loop) -> _Loop:
        own_key = None if key is None else _folded(key, loop.step)
        tokens, log_probs = choose(loop.logits, sampling, own_key)
        new = Sampled(jnp.where(loop.alive, tokens, 0), loop.alive, jnp.where(loop.alive, log_probs, 0.0))
        out = Sampled(
            *(whole.at[..., loop.step].set(part) for whole, part in zip(loop.out, new, strict=True))
        )
        last = remembered(loop.last, tokens)
        return loop._replace(
            step=loop.step + 1, last=last, alive=loop.alive & ~ended(last, sampling), out=out
        )

    def one(loop: _Loop) -> _Loop:
        logits, own = advance(loop.last[..., -1], loop.own, loop.step - 1)
        return chosen(loop._replace(logits=logits, own=own))

    responses = logits.shape[:2]
    shape = (*responses, sampling.max_new_tokens)
    empty = Sampled(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))
    last = jnp.full((*responses, sampling.memory), -1, jnp.int32)
    loop = chosen(_Loop(jnp.int32(0), last, jnp.ones(responses, bool), logits, own, empty))
    for room in rooms:
        loop = loop._replace(own=forks.lengthened(loop.own, room))
        loop = jax.lax.while_loop(going_until(min(room + 1, sampling.max_new_tokens)), one, loop)
    return loop.out


def begin(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    prefilled: Prefilled,
    count: int,
    length: int,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> tuple[Float[Array, "b f w"], Caches, Advance]:
    """Logits of every fork's first token, room for `length` tokens, and the function that reads one more.

    Args:
      params, adapter, config, prefilled, count, compute: as in `decode`.
      length: how many tokens of every fork there is room for; `forks.lengthened` makes more.
    """
    starts, states = (jnp.repeat(each, count, axis=1) for each in (prefilled.starts, prefilled.states))
    places = jnp.arange(prefilled.valid.shape[1])
    language, low_rank, prefix = params["language"], part(adapter, "language"), prefilled.cache
    if compute.unroll_decoding or isinstance(prefix, list):
        language, low_rank = forks.written_out(language, low_rank, config.language)
        prefix = apart(prefix, config.language.num_layers)
    behind = Forks(
        prefix=prefix,
        key_positions=prefilled.positions,
        seen=prefilled.seen[:, None] & (places < starts[..., None]),
        first=jnp.take_along_axis(prefilled.positions, starts - 1, axis=1) + 1,
    )

    def advance(tokens: Array, own: Caches, place: Array) -> tuple[Array, Caches]:
        embeddings = llava.embed(params, config, tokens, None)
        states, own = forks.step(language, config.language, embeddings, behind, own, place, low_rank, compute)
        return llava.logits(params, states), own

    own = forks.empty_cache(config.language, behind, length, states.dtype)
    return llava.logits(params, states), own, advance


def _rooms(longest: int) -> list[int]:
    """How many tokens the forks' caches have room for, one loop after the other.

    Every step reads all the room there is, so that a cache is at most twice as long as what it holds; a loop
    more takes longer to compile, so that no room is halved below 64 tokens.
    """
    rooms = [longest]
    while rooms[0] >= 2 * _LEAST_ROOM:
        rooms.insert(0, -(-rooms[0] // 2))
    return rooms


def _folded(key: Key[Array, "..."], step: Int[Array, ""]) -> Key[Array, "..."]:
    if not key.ndim:
        return jax.random.fold_in(key, step)
    return jax.vmap(lambda each: jax.random.fold_in(each, step))(key.reshape(-1)).reshape(key.shape)
