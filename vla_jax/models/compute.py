"""How a model is computed, apart from what it computes: kernels, and what the backward pass keeps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from vla_jax.models.splash import SPLASH_MULTIPLE
from vla_jax.models.target import Target

ATTENTION_BACKENDS = ("xla", "splash", "cudnn")
REMAT_POLICIES = ("none", "block", "dots", "offload")
# Kinds of machine on which a backend has been compared with the plain one.
_VERIFIED = {"xla": ("cpu", "gpu", "tpu"), "splash": ("cpu",), "cudnn": ("gpu",)}


@dataclass(frozen=True)
class Compute:
    """How the language model is computed; no choice changes what it computes, beyond rounding.

    Attributes:
      attention: "xla" (any machine), "splash" (TPU, a Pallas kernel; interpreted on a CPU) or "cudnn" (GPU,
        half precision).
      remat: what the backward pass finds in memory: "none" keeps every intermediate value, "block" the input
        of each layer and computes the rest again, "dots" the results of matrix products with weights,
        "offload" the same in the host's memory.
      unroll: write the layers out instead of looping over them, whatever the model's own setting: small
        models train a quarter faster on a CPU, and compile longer.
      unroll_decoding: the same where responses are decoded, and there only. A GPU's loop copies each layer's
        weights at every token; written out, they are copied once a call and take their memory once more.
      allow_unverified: use an attention backend on a kind of machine where it has not been compared yet.
      target: what is compiled for, set by whoever knows the mesh, not by a configuration; None is this
        machine, and one device of it.

    Raises:
      ValueError: where there is no such choice.
    """

    attention: str = "xla"
    remat: str = "none"
    unroll: bool = False
    unroll_decoding: bool = False
    allow_unverified: bool = False
    target: Target | None = None

    def __post_init__(self) -> None:
        for field, known in (("attention", ATTENTION_BACKENDS), ("remat", REMAT_POLICIES)):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"compute.{field} is {getattr(self, field)!r}; choose one of {', '.join(known)}"
                )

    @property
    def length_multiple(self) -> int:
        """What a sequence's length must be a multiple of."""
        return SPLASH_MULTIPLE if self.attention == "splash" else 1

    @property
    def platform(self) -> str:
        """The kind of machine that is compiled for."""
        return jax.default_backend() if self.target is None else self.target.platform

    def check_machine(self) -> None:
        """Refuses an attention backend that has not been verified on the kind of machine compiled for.

        Raises:
          ValueError: says how to use it all the same.
        """
        if self.platform not in _VERIFIED[self.attention] and not self.allow_unverified:
            raise ValueError(
                f"compute.attention={self.attention!r} has not been compared with the plain attention on a "
                f"{self.platform}; take 'xla', or set compute.allow_unverified=True and compare yourself"
            )

    def spread(self, x: Float[Array, "b *e"]) -> Float[Array, "b *e"]:
        """The same values, rows spread over the target's devices: see `Target.spread`."""
        return x if self.target is None else self.target.spread(x)

    def checkpointed(self, block: Callable[..., Any], looped: bool) -> Callable[..., Any]:
        """A layer's function that keeps for the backward pass what `remat` says.

        Args:
          block: the function.
          looped: it is the body of a loop, whose passes XLA keeps apart by itself. Of layers written out it
            would merge some of what is computed again with what was computed before, and keep it after all.
        """
        if self.remat == "none":
            return block
        policies = jax.checkpoint_policies
        policy = {
            "block": policies.nothing_saveable,
            "dots": policies.dots_with_no_batch_dims_saveable,
            "offload": policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
        }[self.remat]
        return jax.checkpoint(block, policy=policy, prevent_cse=not looped)
