"""Where a loss looks: its gradient by the pixels of the views."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.data import Batch
from vla_jax.models.parameters import Params
from vla_jax.training.step import Method, Trained, make_views


def saliency(method: Method, trained: Trained, base: Params, batch: Batch) -> Float[Array, "b v y x"]:
    """|d loss / d view|, summed over red, green and blue, of every example's own loss.

    By way of the policy: what the reference says is held as it is.

    Args:
      method: what a step does.
      trained: what it trains, at any time.
      base: the reference's parameters.
      batch: examples; of images in tiles the first tile's map is given.

    Source: LPOI, section 5 (saliency maps).
    """

    method = replace(method, dropout=0.0)

    @jax.jit
    def gradient(trained: Trained, base: Params, batch: Batch) -> Array:
        views = make_views(method.recipe, batch, method.seed).astype(jnp.float32)

        def total(views: Array) -> Array:
            scores = method.scores_of_views(trained, base, batch, views)
            return method.recipe.objective(scores).losses.sum()

        return jnp.abs(jax.grad(total)(views)).sum(axis=-1)

    maps = gradient(trained, base, batch)
    return maps if batch.layout is None else maps[:, :, 0]
