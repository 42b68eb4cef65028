"""From hidden states to the log-probabilities of tokens, without all logits at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vla_jax.models.target import Target

# Tokens whose logits a device holds at one time: 2048 x 32k words in float32 are a quarter of a gigabyte.
_CHUNK = 2048


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def chosen_log_probs(
    matrix: Float[Array, "d w"],
    states: Float[Array, "b c t d"],
    targets: Int[Array, "b c t"],
    target: Target | None = None,
) -> Float[Array, "b c t"]:
    """log softmax(states @ matrix) at the targets, in float32.

    Logits exist for a chunk of tokens at a time. Where the matrix is frozen, the chunk's gradient by the
    states is formed beside the value, from the same logits, so that the backward pass has none to compute;
    where it is trained, the backward pass computes them again, chunk by chunk.

    Args:
      matrix: from hidden states to logits.
      states: of the positions that predict.
      targets: the tokens they are asked for.
      target: over which devices rows are spread; None is one.
    """
    return in_chunks(lambda states, targets: _value(matrix, states, targets)[0], target, states, targets)


def _forward(
    matrix: Any, states: Any, targets: Any, target: Target | None
) -> tuple[Float[Array, "b c t"], tuple]:
    if matrix.perturbed:
        value = chosen_log_probs(matrix.value, states.value, targets.value, target)
        return value, (matrix.value, states.value, targets.value, None)

    def value_and_slope(states: Array, targets: Array) -> tuple[Array, Array]:
        value, logits, normaliser = _value(matrix.value, states, targets)
        return value, _slope(matrix.value, logits, normaliser, targets)

    value, slope = in_chunks(value_and_slope, target, states.value, targets.value)
    return value, (None, None, None, slope)


def _backward(target: Target | None, kept: tuple, cotangent: Any) -> tuple[Any, Any, None]:
    matrix, states, targets, slope = kept
    if slope is not None:
        return None, (cotangent[..., None] * slope).astype(slope.dtype), None

    def part(total: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        states, targets, cotangent = _rows_apart(target, *chunk)
        _, logits, normaliser = _value(matrix, states, targets)
        weights = (cotangent[..., None] * _by_logits(logits, normaliser, targets)).astype(matrix.dtype)
        by_states = jnp.einsum("bctw,dw->bctd", weights, matrix).astype(states.dtype)
        by_matrix = jnp.einsum(
            "bctd,bctw->dw", states.astype(matrix.dtype), weights, preferred_element_type=jnp.float32
        )
        return total + by_matrix, by_states

    length = targets.shape[2]
    chunks = tuple(_split(array, target) for array in (states, targets, cotangent))
    by_matrix, by_states = jax.lax.scan(part, jnp.zeros(matrix.shape, jnp.float32), chunks)
    return by_matrix.astype(matrix.dtype), _merge(by_states, length), None


chosen_log_probs.defvjp(_forward, _backward, symbolic_zeros=True)


def likeliest_tokens(
    matrix: Float[Array, "d w"], states: Float[Array, "b c t d"], target: Target | None = None
) -> Int[Array, "b c t"]:
    """The token of the highest logit at every position."""

    def likeliest(states: Array) -> Array:
        return jnp.argmax(logits_of(matrix, states), axis=-1).astype(jnp.int32)

    return in_chunks(likeliest, target, states)


def logits_of(matrix: Float[Array, "d w"], states: Float[Array, "b c t d"]) -> Float[Array, "b c t w"]:
    """Logits of all tokens at every position, float32."""
    if states.dtype == jnp.float16:
        # XLA's CPU has no product of float16 that adds up in float32.
        states, matrix = states.astype(jnp.float32), matrix.astype(jnp.float32)
    return jnp.einsum("bctd,dw->bctw", states, matrix, preferred_element_type=jnp.float32)


def _value(
    matrix: Float[Array, "d w"], states: Float[Array, "b c t d"], targets: Int[Array, "b c t"]
) -> tuple[Float[Array, "b c t"], Float[Array, "b c t w"], Float[Array, "b c t"]]:
    logits = logits_of(matrix, states)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - normaliser, logits, normaliser


def _slope(
    matrix: Float[Array, "d w"],
    logits: Float[Array, "b c t w"],
    normaliser: Float[Array, "b c t"],
    targets: Int[Array, "b c t"],
) -> Float[Array, "b c t d"]:
    """The gradient of a log-probability by its state: the target's column less the expected column."""
    weights = _by_logits(logits, normaliser, targets).astype(matrix.dtype)
    return jnp.einsum("bctw,dw->bctd", weights, matrix)


def _by_logits(logits: Array, normaliser: Array, targets: Array) -> Float[Array, "b c t w"]:
    """The gradient of a log-probability by the logits.

    In float32, to be rounded after the difference: of a token that is all but certain, that is what is left.
    """
    return jax.nn.one_hot(targets, logits.shape[-1]) - jnp.exp(logits - normaliser[..., None])


def in_chunks(function: Callable[..., Any], target: Target | None, *arrays: Array) -> Any:
    """Applies a function of arrays [b c t ...] to pieces along t, so that every device keeps its rows."""
    length = arrays[0].shape[2]
    if length <= _tokens(arrays[0], target):
        return function(*_rows_apart(target, *arrays))
    pieces = tuple(_split(array, target) for array in arrays)
    made = jax.lax.map(lambda piece: function(*_rows_apart(target, *piece)), pieces)
    return jax.tree.map(lambda array: _merge(array, length), made)


def _rows_apart(target: Target | None, *arrays: Array) -> tuple[Array, ...]:
    """Rows on their devices: XLA then gathers the matrix, where that is split, and not the rows."""
    return arrays if target is None else tuple(target.spread(array) for array in arrays)


def _tokens(array: Array, target: Target | None) -> int:
    """Tokens of each candidate that make a chunk."""
    devices = 1 if target is None else target.size(*target.rows)
    return max(1, _CHUNK * devices // (array.shape[0] * array.shape[1]))


def _split(array: Float[Array, "b c t *e"], target: Target | None) -> Float[Array, "n b c m *e"]:
    size, length = min(_tokens(array, target), array.shape[2]), array.shape[2]
    rest = [(0, 0)] * (array.ndim - 3)
    padded = jnp.pad(array, [(0, 0), (0, 0), (0, -length % size), *rest])
    pieces = padded.reshape(*array.shape[:2], -1, size, *array.shape[3:])
    return jnp.moveaxis(pieces, 2, 0)


def _merge(pieces: Float[Array, "n b c m *e"], length: int) -> Float[Array, "b c t *e"]:
    moved = jnp.moveaxis(pieces, 0, 2)
    return moved.reshape(*moved.shape[:2], -1, *moved.shape[4:])[:, :, :length]
