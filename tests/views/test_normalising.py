"""Normalisation against transformers' CLIP, the statistics every LLaVA was trained with."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from vla_jax.views import normalise

CLIP = (tuple(CLIPImageProcessorPil.image_mean), tuple(CLIPImageProcessorPil.image_std))
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)


def test_gives_what_transformers_gives():
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    pictures = [Image.fromarray(image) for image in IMAGES]
    theirs = processor(pictures, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(normalise(jnp.array(IMAGES), *CLIP), theirs, atol=2e-6)


@pytest.mark.smoke
def test_the_mean_colour_is_zero_and_one_deviation_is_one():
    mean, deviation = CLIPImageProcessorPil.image_mean, CLIPImageProcessorPil.image_std
    for level in (0, 255):
        expected = (level / 255 - np.array(mean)) / np.array(deviation)
        np.testing.assert_allclose(
            normalise(jnp.full((1, 1, 3), level, jnp.uint8), mean, deviation)[0, 0], expected, rtol=1e-5
        )


def test_any_leading_axes_are_kept():
    stacked = jnp.array(IMAGES)[None]
    made = normalise(stacked, *CLIP)
    assert made.dtype == jnp.float32 and made.shape == stacked.shape
    np.testing.assert_array_equal(made[0], normalise(jnp.array(IMAGES), *CLIP))
