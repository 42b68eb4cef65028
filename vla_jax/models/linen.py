"""Any model of ours as a `flax.linen` module, for programs written in linen.

    decoder = Ported(llama.table(config, prefix, head), partial(llama.forward, config=config))
    variables = decoder.init(key, embeddings=x, positions=positions, mask=mask)
    states, _ = decoder.apply(variables, embeddings=x, positions=positions, mask=mask)

The "params" collection has the table's structure, so `{"params": params}` serves `apply` as it is, wherever
`params` came from.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import freeze
from jaxtyping import DTypeLike

from vla_jax.models.parameters import Params, Table


class Ported(nn.Module):
    """A pure function over the parameters of a table, as a linen module.

    `init` gives every parameter boxed with its logical axes (`nn.LogicallyPartitioned`), as linen's own
    layers do under `nn.with_logical_partitioning`: `nn.get_partition_spec` reads them, `nn.meta.unbox` gives
    the plain tree. `apply` takes both.

    Attributes:
      table: the parameters.
      forward: called as `forward(params, *args, **kwargs)` with what the module is called with. Where a
        config is bound by `functools.partial`, what follows it has to come by keyword.
      dtype: of the parameters that `init` draws.
    """

    table: Table
    forward: Callable[..., Any]
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        # linen does so for a module inside another; this lets one that stands alone be hashed too.
        self.table = freeze(self.table)
        super().__post_init__()

    @nn.compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `forward` returns."""
        return self.forward(_declare(self, self.table, self.dtype), *args, **kwargs)


class _Branch(nn.Module):
    """A nested table: linen nests parameters by nesting modules."""

    table: Table
    dtype: DTypeLike

    @nn.compact
    def __call__(self) -> Params:
        return _declare(self, self.table, self.dtype)


def _declare(module: nn.Module, table: Table, dtype: DTypeLike) -> Params:
    params: dict[str, Any] = {}
    for name, node in table.items():
        if isinstance(node, Mapping):
            params[name] = _Branch(node, dtype, name=name)()
        else:
            init = nn.with_logical_partitioning(node.init, node.axes)
            params[name] = module.param(name, init, node.shape, dtype)
    return params
