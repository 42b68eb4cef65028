"""What a program is compiled for: a kind of machine, and how arrays lie on its mesh."""

import math
from dataclasses import dataclass

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Target:
    """Where a program will run.

    The axes are those of the mesh of `jax.set_mesh`, under which the program must then be traced: a mesh
    holds devices, and what is static in a program should not.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      rows: mesh axes that rows of a batch are spread over; with none, nothing is said about where
        activations lie.
      heads: mesh axis that attention heads are spread over; "" spreads none.
    """

    platform: str
    rows: tuple[str, ...] = ()
    heads: str = ""

    @property
    def on_mesh(self) -> bool:
        """Whether anything is spread."""
        return bool(self.rows or self.heads)

    def size(self, *axes: str) -> int:
        """How many parts these axes of the mesh make together.

        Raises:
          ValueError: where the program is traced without the mesh.
        """
        mesh = jax.sharding.get_abstract_mesh()
        if missing := [axis for axis in axes if axis not in mesh.shape]:
            raise ValueError(
                f"what is spread over the mesh axis {missing[0]!r} must be traced under jax.set_mesh(mesh) "
                "with a mesh that has it"
            )
        return math.prod(mesh.shape[axis] for axis in axes)

    def spread(self, x: Float[Array, "b *e"]) -> Float[Array, "b *e"]:
        """The same values, rows spread over the devices and every row whole on one.

        Said of activations, it makes XLA gather weights that are split over the same axes: left alone, it may
        as well gather the batch.
        """
        if not self.rows:
            return x
        # Where the mesh is missing, this says so better than the constraint would.
        self.size(*self.rows)
        return jax.lax.with_sharding_constraint(x, PartitionSpec(self.rows))
