"""The contrastive loss that gives images and texts one space."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def contrastive(logits: Float[Array, "b b"]) -> Float[Array, " b"]:
    """Each image picks its text among the batch's, and each text its image.

    loss of pair i = -(log softmax over texts of row i + log softmax over images of column i)[i] / 2

    Args:
      logits: scaled similarities, images by texts; pair i stands on the diagonal.

    Returns:
      One loss a pair; their mean is what transformers calls `image_text_contrastive_loss`, once `clip_loss`.

    Source: Radford et al. 2021 (arXiv:2103.00020), figure 3; InfoNCE, van den Oord et al. 2018
    (arXiv:1807.03748).
    """
    by_image, by_text = jax.nn.log_softmax(logits, axis=1), jax.nn.log_softmax(logits, axis=0)
    return -(jnp.diagonal(by_image) + jnp.diagonal(by_text)) / 2
