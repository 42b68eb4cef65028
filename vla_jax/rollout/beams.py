"""Beam search over one prefill, with the semantics of transformers' `generate(num_beams=n)`."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models import forks
from vla_jax.models.compute import Compute
from vla_jax.models.forks import Caches
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter
from vla_jax.models.parameters import Params
from vla_jax.rollout.choosing import Sampling, ended, remembered
from vla_jax.rollout.decoding import Sampled, begin
from vla_jax.rollout.prefilling import Prefilled

# The score of what has no place among the beams.
_NEVER = -1e9


@dataclass(frozen=True)
class Beams:
    """How beams are searched; static in a program. Names and meaning are those of transformers.

    Attributes:
      num_beams: n, beams of every row.
      length_penalty: a beam's score is its log-probability over its length to this power.
      early_stopping: True ends a row once n beams have ended; False when its best running beam, at its
        present length, scores less than the worst of n ended ones; "never" when it does so at the best
        length that it could still reach.

    Raises:
      ValueError: where a value cannot be.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"num_beams is {self.num_beams}; a search has at least 1 beam")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f"early_stopping is {self.early_stopping!r}; it is True, False or 'never'")


class _Search(NamedTuple):
    """What goes from token to token: running beams, best first, and ended ones, best first."""

    step: Int[Array, ""]
    logits: Float[Array, "b n w"]
    own: Caches
    running: Sampled
    last: Int[Array, "b n m"]
    sums: Float[Array, "b n"]
    done: Sampled
    scores: Float[Array, "b n"]
    ended: Bool[Array, "b n"]
    improvable: Bool[Array, "b 1"]


@partial(jax.jit, static_argnames=("config", "sampling", "beams", "compute"))
def search(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    prefilled: Prefilled,
    sampling: Sampling,
    beams: Beams,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> tuple[Sampled, Float[Array, "b n"]]:
    """The n best responses found from every row's one start, best first [b n t], and their scores.

    Beams are forks of one prefill: when one goes on from another, only its own tokens' cache is copied.

    Args:
      params, adapter, config, prefilled, compute: as in `decode`.
      sampling: the longest response, and what ends one. Log-probabilities are at temperature 1, unfiltered.
      beams: see `Beams`.

    Raises:
      ValueError: where there is a temperature or a filter, which a search does not know, or where sequences
        were read for several starts a row.
    """
    if sampling.temperature or sampling.top_k or sampling.top_p < 1:
        raise ValueError("beams are searched, not sampled: leave temperature, top_k and top_p alone")
    if prefilled.starts.shape[1] != 1:
        raise ValueError(
            f"a search begins at one place of a row, and these were read for {prefilled.starts.shape[1]}; "
            "give prefill one start a row, or none"
        )
    count, longest = beams.num_beams, sampling.max_new_tokens
    # So many continuations hold at least n that do not end.
    kept = max(2, 1 + len(sampling.end_ids) + len(sampling.stop)) * count
    logits, own, advance = begin(params, adapter, config, prefilled, count, longest, compute)
    rows = len(logits)

    def expanded(now: _Search) -> tuple[_Search, Int[Array, "b n"]]:
        """One more token of every beam, and the beams from which the running ones now come."""
        log_probs = jax.nn.log_softmax(now.logits)
        every = (now.sums[..., None] + log_probs).reshape(rows, -1)
        sums, places = jax.lax.top_k(every, kept)
        parents, tokens = places // log_probs.shape[-1], places % log_probs.shape[-1]
        said = jnp.take_along_axis(log_probs.reshape(rows, -1), places, axis=1)
        longer = Sampled(
            *(
                whole.at[..., now.step].set(new)
                for whole, new in zip(_picked(now.running, parents), (tokens, True, said), strict=True)
            )
        )
        last = remembered(_picked(now.last, parents), tokens)
        ends = ended(last, sampling) | (now.step + 1 == longest)

        length = (now.step + 1).astype(jnp.float32)
        eligible = ends & (jnp.arange(kept) < count) & now.improvable
        if beams.early_stopping is True:
            eligible &= ~now.ended.all(axis=1, keepdims=True)
        scores = jnp.where(eligible, sums / length**beams.length_penalty, _NEVER)
        scores, best = jax.lax.top_k(jnp.concatenate([now.scores, scores], axis=1), count)
        done = _picked(jax.tree.map(lambda *both: jnp.concatenate(both, axis=1), now.done, longer), best)
        all_ended = _picked(jnp.concatenate([now.ended, eligible], axis=1), best)

        sums, going = jax.lax.top_k(jnp.where(ends, _NEVER, sums), count)
        reachable = longest if beams.early_stopping == "never" and beams.length_penalty > 0 else length
        worst = jnp.where(all_ended, scores.min(axis=1, keepdims=True), _NEVER)
        better = sums[:, :1] / reachable**beams.length_penalty > worst
        after = now._replace(
            step=now.step + 1,
            running=_picked(longer, going),
            last=_picked(last, going),
            sums=sums,
            done=done,
            scores=scores,
            ended=all_ended,
            improvable=now.improvable & better.any(axis=1, keepdims=True),
        )
        return after, _picked(parents, going)

    def one(state: tuple[_Search, Int[Array, "b n"]]) -> tuple[_Search, Int[Array, "b n"]]:
        now, parents = state
        own = forks.reordered(now.own, parents)
        logits, own = advance(now.last[..., -1], own, now.step - 1)
        return expanded(now._replace(logits=logits, own=own))

    def going(state: tuple[_Search, Int[Array, "b n"]]) -> Bool[Array, ""]:
        now = state[0]
        open_rows = now.improvable[:, 0]
        if beams.early_stopping is True:
            open_rows &= ~now.ended.all(axis=1)
        return (now.step < longest) & open_rows.any()

    shape = (rows, count, longest)
    nothing = Sampled(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))
    first = _Search(
        step=jnp.int32(0),
        logits=logits,
        own=own,
        running=nothing,
        last=jnp.full((rows, count, sampling.memory), -1, jnp.int32),
        # All beams begin alike; one of them is enough.
        sums=jnp.full((rows, count), _NEVER).at[:, 0].set(0.0),
        done=nothing,
        scores=jnp.full((rows, count), _NEVER),
        ended=jnp.zeros((rows, count), bool),
        improvable=jnp.ones((rows, 1), bool),
    )
    found = jax.lax.while_loop(going, one, expanded(first))[0]
    return found.done, found.scores


def _picked(tree: Any, places: Int[Array, "b m"]) -> Any:
    """Some of the second axis of every array, row by row."""

    def one(array: Array) -> Array:
        return jnp.take_along_axis(array, places.reshape(*places.shape, *[1] * (array.ndim - 2)), axis=1)

    return jax.tree.map(one, tree)
