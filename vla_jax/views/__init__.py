"""Views: what else the model is shown of an image, made on the device from uint8 in jit.

Every function takes one image and is meant for `jax.vmap`. Boxes are (x0, y0, x1, y1) in pixels of that
image, x1 and y1 exclusive. A view is uint8 RGB again; `normalise` comes last.
"""

from vla_jax.views.cropping import random_resized_crop
from vla_jax.views.masking import ellipse_outline, progressive_masks
from vla_jax.views.normalising import normalise

__all__ = ["ellipse_outline", "normalise", "progressive_masks", "random_resized_crop"]
