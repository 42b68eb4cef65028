"""The parameter table: every parameter of a model declared once.

A table is a nested dict with `Parameter` leaves. It is itself a tree, so what is derived from it (initial
values, abstract shapes, shardings, names in a Hugging Face checkpoint) is one `jax.tree.map` away.
"""

import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, PRNGKeyArray

Initialiser = Callable[[PRNGKeyArray, tuple[int, ...], Any], Array]
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One parameter, or one stacked over the layers of a tower.

    Attributes:
      shape: its dimensions.
      axes: one logical axis name a dimension, mapped to mesh axes by `parallel`; None is never sharded.
      init: draws its initial value.
      hugging_face: its name in a Hugging Face checkpoint; `{layer}` stands for the index along `layers`.
      layout: einops pattern from the Hugging Face layout of one layer to ours ("o i -> i o");
        empty where they agree.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    init: Initialiser
    hugging_face: str
    layout: str = ""

    @property
    def is_block_linear(self) -> bool:
        """Whether it is the matrix of a linear layer, [in out] or stacked, and not the one giving logits."""
        return self.layout == "o i -> i o" and "vocab" not in self.axes

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.axes):
            raise ValueError(f"{self.hugging_face}: {len(self.axes)} axis names for shape {self.shape}")


Table = Mapping[str, "Parameter | Table"]

zeros: Initialiser = jax.nn.initializers.zeros
ones: Initialiser = jax.nn.initializers.ones


def normal(scale: float) -> Initialiser:
    """Gaussian with standard deviation `scale`."""
    return jax.nn.initializers.normal(scale)


def linear(
    inputs: tuple[int, str | None], outputs: tuple[int, str | None], name: str, *, scale: float = 1.0
) -> Parameter:
    """The matrix [in out] of a linear layer, variance scaled by fan-in.

    Args:
      inputs: (size, logical axis) of the input.
      outputs: (size, logical axis) of the output.
      name: the layer's Hugging Face name, without `.weight`.
      scale: factor on the standard deviation, e.g. 1 / sqrt(2 layers) where a residual branch ends, or 0.
    """
    init = normal(scale / math.sqrt(inputs[0]))
    shape, axes = (inputs[0], outputs[0]), (inputs[1], outputs[1])
    return Parameter(shape, axes, init, f"{name}.weight", "o i -> i o")


def stack(table: Table, layers: int) -> Table:
    """The table of one layer, stacked `layers` times along a new leading axis named `layers`."""
    return jax.tree.map(
        lambda p: replace(p, shape=(layers, *p.shape), axes=("layers", *p.axes)), table, is_leaf=_is_leaf
    )


def initialise(table: Table, key: PRNGKeyArray, dtype: DTypeLike = jnp.float32) -> Params:
    """Draws every parameter; a parameter's value depends on its path and `key`, not on its neighbours."""

    def draw(path: tuple[Any, ...], parameter: Parameter) -> Array:
        own_key = jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode()))
        return parameter.init(own_key, parameter.shape, dtype)

    return jax.tree_util.tree_map_with_path(draw, table, is_leaf=_is_leaf)


def abstract(table: Table, dtype: DTypeLike = jnp.float32) -> Params:
    """The tree of shapes and dtypes, with nothing allocated."""
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, dtype), table, is_leaf=_is_leaf)


def logical_axes(table: Table) -> Mapping[str, Any]:
    """The tree of logical axis names."""
    return jax.tree.map(lambda p: p.axes, table, is_leaf=_is_leaf)


def split(params: Params, pattern: str) -> tuple[Params, Params]:
    """The parameters whose path ("vision/layers/fc1") matches a regular expression, and all others.

    An empty pattern matches none. `overlay` puts the two together again.
    """

    def pick(node: Params, path: str, wanted: bool) -> Params:
        chosen: dict[str, Any] = {}
        for name, child in node.items():
            if isinstance(child, Mapping):
                child = pick(child, f"{path}{name}/", wanted)
                if child:
                    chosen[name] = child
            elif bool(pattern and re.search(pattern, path + name)) == wanted:
                chosen[name] = child
        return chosen

    return pick(params, "", True), pick(params, "", False)


def overlay(base: Params, changes: Params) -> Params:
    """`base` with every parameter that `changes` holds taken from there, in the dtype `base` has it in."""
    merged = dict(base)
    for name, change in changes.items():
        if isinstance(change, Mapping):
            merged[name] = overlay(base.get(name, {}), change)
        else:
            merged[name] = change.astype(base[name].dtype) if name in base else change
    return merged


def size(table: Table) -> int:
    """The number of scalars."""
    return sum(math.prod(p.shape) for p in jax.tree.leaves(table, is_leaf=_is_leaf))


def _is_leaf(node: Any) -> bool:
    return isinstance(node, Parameter)
