"""Views: what else the model is shown of an image, made on the device from uint8 in jit.

Every function takes one image (`keep_mask` its number of tokens) and is meant for `jax.vmap`. Boxes are
(x0, y0, x1, y1) in pixels of that image, x1 and y1 exclusive; masks are over its pixels. A view is uint8 RGB
again; `normalise` comes last.
"""

from vla_jax.views.blocking import keep_mask
from vla_jax.views.cropping import random_resized_crop, resized_crop
from vla_jax.views.masking import ellipse_outline, progressive_masks
from vla_jax.views.noising import cumulative_alpha, diffusion_noise, rectangle_noise
from vla_jax.views.normalising import normalise
from vla_jax.views.removal import remove_object

__all__ = [
    "cumulative_alpha",
    "diffusion_noise",
    "ellipse_outline",
    "keep_mask",
    "normalise",
    "progressive_masks",
    "random_resized_crop",
    "rectangle_noise",
    "remove_object",
    "resized_crop",
]
