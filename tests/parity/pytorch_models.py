"""PyTorch models to compare with: small, random, and loud enough that every weight matters."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

torch = pytest.importorskip("torch")

from vla_jax.interop.checkpoint import open_checkpoint  # noqa: E402
from vla_jax.interop.names import is_buffer, stored_name  # noqa: E402
from vla_jax.interop.weights import load  # noqa: E402
from vla_jax.models import Parameter  # noqa: E402
from vla_jax.parallel import make_mesh, replicated  # noqa: E402


def loud(model: Any, seed: int = 0) -> Any:
    """The model in evaluation mode, its weights drawn anew: biases and norms near what they were, matrices
    scaled by fan-in."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.squeeze().ndim <= 1:
                weight.add_(0.3 * noise)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    return model.eval()


def params_of(table: Any, model: Any, folder: Path, ignore: Any = is_buffer) -> Any:
    """The model's parameters in our table, by way of the files that `save_pretrained` writes."""
    model.save_pretrained(folder)
    checkpoint = open_checkpoint(folder, rename=stored_name)
    on_one = replicated(make_mesh(devices=jax.devices()[:1]))
    shardings = jax.tree.map(lambda _: on_one, table, is_leaf=lambda node: isinstance(node, Parameter))
    return load(table, checkpoint, shardings, ignore=ignore)


def to_torch(array: Any) -> Any:
    """An array as a tensor of its own."""
    return torch.from_numpy(jnp.asarray(array).__array__().copy())


def channels_first(pixels: Any) -> Any:
    """[... y x c] as a tensor [... c y x]."""
    return to_torch(pixels).movedim(-1, -3).contiguous()
