"""Prompts, or whole sequences, read once: what responses begin from."""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vla_jax.models import forks, llava
from vla_jax.models.compute import Compute
from vla_jax.models.forks import Caches
from vla_jax.models.llava import LlavaConfig
from vla_jax.models.lora import Adapter, part
from vla_jax.models.parameters import Params

# Keys lie along places: a CPU reads them a fifth faster where each row of them begins with a cache line.
_LINE = 16


class Prefilled(flax.struct.PyTreeNode):
    """Sequences that a model has read, padded on the right to a multiple of 16 places.

    Attributes:
      starts: where responses begin, as indices into s.
      states: the last hidden state before each start, which predicts the token at it.
      cache: keys and values of every layer.
      valid: False at padding.
      seen: False at padding and at keys that are hidden.
      positions: rotary position of every token.
    """

    starts: Int[Array, "b f"]
    states: Float[Array, "b f d"]
    cache: Caches
    valid: Bool[Array, "b s"]
    seen: Bool[Array, "b s"]
    positions: Int[Array, "b s"]


@partial(jax.jit, static_argnames=("config", "compute"))
def prefill(
    params: Params,
    adapter: Adapter | None,
    config: LlavaConfig,
    features: Float[Array, "b n d"] | None,
    tokens: Int[Array, "b s"],
    mask: Bool[Array, "b s"],
    keep: Bool[Array, "b s"] | None = None,
    starts: Int[Array, "b f"] | None = None,
    compute: Compute = Compute(),  # noqa: B008 (immutable)
) -> Prefilled:
    """Reads sequences once, so that responses can begin at some of their places.

    Where layers are written out, the last one computes no more than keys and values of places that no
    response begins behind.

    Args:
      params, adapter, config: the model.
      features: image tokens of each row; None where no row has an image.
      tokens: ids with expanded image placeholders, of prompts or of prompts with responses.
      mask: False at padding, which may stand on either side of a row and not within it.
      keep: False hides a key from every query, its own token's among them, here and in all that is decoded
        from here; positions do not change. None hides none.
      starts: the place of each response's first token, as an index into s; at least 1, with a token (not
        padding) before it. None begins one behind every row's last token.
      compute: kernels, where activations lie, and whether layers are written out.
    """
    starts = _ends(mask) if starts is None else starts
    tokens, mask = _padded(tokens), _padded(mask)
    positions, seen = llava.positions(mask), mask if keep is None else mask & _padded(keep)
    language, low_rank = params["language"], part(adapter, "language")
    if config.language.unroll or compute.unroll:
        language, low_rank = forks.written_out(language, low_rank, config.language)
    states, cache = forks.read(
        language,
        config.language,
        llava.embed(params, config, tokens, features),
        positions,
        seen,
        starts - 1,
        low_rank,
        compute,
    )
    return Prefilled(starts, states, cache, mask, seen, positions)


def _ends(mask: Bool[Array, "b s"]) -> Int[Array, "b 1"]:
    """The place behind every row's last token."""
    return (mask.shape[1] - jnp.argmax(mask[:, ::-1], axis=1, keepdims=True)).astype(jnp.int32)


def _padded(array: Array) -> Array:
    return jnp.pad(array, [(0, 0), (0, -array.shape[1] % _LINE)])
