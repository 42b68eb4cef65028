"""Activation functions by the names that Hugging Face configs give them (`hidden_act`)."""

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Array


def quick_gelu(x: Array) -> Array:
    """OpenAI CLIP's approximation of the GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


_BY_NAME: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}
ACTIVATIONS = tuple(_BY_NAME)


def activation(name: str) -> Callable[[Array], Array]:
    """The function of that name.

    Raises:
      ValueError: where there is none; the known ones are named.
    """
    if name not in _BY_NAME:
        raise ValueError(f"activation {name!r} is not known; known are {', '.join(ACTIVATIONS)}")
    return _BY_NAME[name]
