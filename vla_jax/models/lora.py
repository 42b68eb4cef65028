"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) as a tree of their own.

An adapter mirrors the base tree where it adapts it and is absent elsewhere. A model applies it beside the
base weight, `x W + scale (x A) B`, and never forms `A B`. So the policy is `f(params, adapter, x)`, the
reference it started from is `f(params, None, x)` with no second copy of the weights, and optimizer,
checkpoint and donation touch the adapter alone. `B` starts at zero: at step 0 policy and reference agree,
to the bit wherever XLA compiles both alike (always, where the language model alone is adapted).
"""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from vla_jax.models.parameters import Parameter, Table

Adapter = Mapping[str, Any]


@dataclass(frozen=True)
class LoraConfig:
    """What is adapted and how strongly.

    Attributes:
      rank: inner dimension r; 0 means no adapter (all parameters are trained).
      alpha: the update is scaled by alpha / rank.
      targets: regular expression searched in a parameter's path ("language/layers/q_proj"); only linear
        layers can match, and not the one that gives the logits. The default takes every linear layer of the
        language model's blocks.
      dropout: share of an adapted layer's inputs that its adapter does not see while training.
      modules_to_save: regular expression (PEFT's name): parameters that are trained whole beside the adapter,
        e.g. "^projector/".
    """

    rank: int = 8
    alpha: float = 8.0
    targets: str = r"^language/layers/"
    dropout: float = 0.0
    modules_to_save: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout is {self.dropout}; it must be at least 0 and below 1")


class LowRank(flax.struct.PyTreeNode):
    """One adapted layer: the pair of factors, with the scale alpha / rank as a static part of the tree.

    While training with dropout it also holds a key a layer, and the share that is dropped.
    """

    a: Float[Array, "*l d_in r"]
    b: Float[Array, "*l r d_out"]
    scale: float = flax.struct.field(pytree_node=False)
    key: PRNGKeyArray | None = None
    dropout: float = flax.struct.field(pytree_node=False, default=0.0)


def apply(
    x: Float[Array, "*b d_in"],
    weight: Float[Array, "d_in d_out"],
    low_rank: LowRank | None,
    bias: Float[Array, " d_out"] | None = None,
) -> Array:
    """A linear layer with its adapter and its bias, where it has them: float [... d_in] -> [... d_out].

    Computed in the dtype of `x`, whatever the parameters are kept in: an adapter is often float32 beside a
    bfloat16 base.
    """
    # Rows flattened: the weight's gradient then contracts one axis, which XLA does twice as fast on a CPU.
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ weight.astype(x.dtype)
    if low_rank is not None:
        seen = rows
        if low_rank.key is not None:
            kept = jax.random.bernoulli(low_rank.key, 1 - low_rank.dropout, rows.shape)
            seen = jnp.where(kept, rows / (1 - low_rank.dropout), 0)
        y = y + low_rank.scale * (_narrowed(seen, low_rank.a.astype(x.dtype)) @ low_rank.b.astype(x.dtype))
    if bias is not None:
        y = y + bias.astype(x.dtype)
    return y.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _narrowed(rows: Float[Array, "n d"], a: Float[Array, "d r"]) -> Float[Array, "n r"]:
    """`rows @ a`, with its gradient by `a` formed as [r d]: XLA's CPU is seven times as fast at that."""
    return rows @ a


def _narrowed_forward(rows: Array, a: Array) -> tuple[Array, tuple[Array, Array]]:
    return rows @ a, (rows, a)


def _narrowed_backward(kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    rows, a = kept
    # Without the barrier XLA turns the product and its transposition into the slow product again.
    return cotangent @ a.T, jax.lax.optimization_barrier(cotangent.T @ rows).T


_narrowed.defvjp(_narrowed_forward, _narrowed_backward)


def part(adapter: Adapter | None, name: str) -> Any:
    """The adapter of a sub-tree; None where nothing in it is adapted."""
    return None if adapter is None else adapter.get(name)


def initialise(
    table: Table, config: LoraConfig, key: PRNGKeyArray, dtype: DTypeLike = jnp.float32
) -> Adapter:
    """Draws an adapter for every linear layer of `table` that `config.targets` matches: A He-uniform, B zero.

    Raises:
      ValueError: where the pattern matches no linear layer, or the rank is not positive.
    """
    if config.rank < 1:
        raise ValueError(f"lora.rank is {config.rank}; an adapter needs a rank of at least 1")
    adapter = _initialise(table, "", config, key, dtype)
    if adapter is None:
        raise ValueError(
            f"lora.targets = {config.targets!r} matches no linear layer; paths look like "
            "'language/layers/q_proj' or 'vision/layers/fc1'"
        )
    return adapter


def with_dropout(adapter: Adapter, dropout: float, key: PRNGKeyArray) -> Adapter:
    """The adapter with dropout on its inputs: in expectation it does what it did, in this step at random."""
    leaves, structure = jax.tree.flatten(adapter, is_leaf=lambda node: isinstance(node, LowRank))
    keyed = [
        leaf.replace(key=jax.random.split(jax.random.fold_in(key, i), leaf.a.shape[:-2]), dropout=dropout)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, keyed)


def merge(params: Any, adapter: Any) -> Any:
    """The base weights with the adapter's update added in; `params` itself is unchanged.

    Added in float32, and rounded once to the base's dtype.
    """
    if adapter is None:
        return params
    if isinstance(adapter, LowRank):
        a, b = adapter.a.astype(jnp.float32), adapter.b.astype(jnp.float32)
        update = adapter.scale * jnp.einsum("...ir,...ro->...io", a, b)
        return (params.astype(jnp.float32) + update).astype(params.dtype)
    return {name: merge(value, part(adapter, name)) for name, value in params.items()}


def _initialise(
    node: Table | Parameter, path: str, config: LoraConfig, key: PRNGKeyArray, dtype: DTypeLike
) -> Any:
    if isinstance(node, Parameter):
        if not node.is_block_linear or not re.search(config.targets, path):
            return None
        *layers, d_in, d_out = node.shape
        own_key = jax.random.fold_in(key, zlib.crc32(path.encode()))
        # PEFT's kaiming_uniform_(a=sqrt(5)): uniform within 1 / sqrt(fan in).
        bound = 1 / math.sqrt(d_in)
        a = jax.random.uniform(own_key, (*layers, d_in, config.rank), dtype, -bound, bound)
        return LowRank(a, jnp.zeros((*layers, config.rank, d_out), dtype), config.alpha / config.rank)
    children = {
        name: _initialise(child, f"{path}/{name}".lstrip("/"), config, key, dtype)
        for name, child in node.items()
    }
    return {name: child for name, child in children.items() if child is not None} or None
