"""Images padded to a square: a box drawn before is where `fit_box` says it is after."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.data.image_processing import ImageProcessor

CLIP_MEAN = (122, 116, 104)


def test_an_image_of_the_right_size_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    np.testing.assert_array_equal(ImageProcessor.square(24)(image)[0], image)
    assert ImageProcessor.square(24).fit_box((1.0, 2.0, 3.0, 4.0), 24, 24) == (1.0, 2.0, 3.0, 4.0)


@pytest.mark.smoke
@pytest.mark.parametrize("height, width", [(40, 80), (80, 40), (37, 53), (48, 48), (24, 1), (200, 300)])
def test_the_whole_image_becomes_a_square_padded_with_clips_mean(height, width):
    processor = ImageProcessor.square(48)
    (fitted,) = processor(np.zeros((height, width, 3), np.uint8))
    assert fitted.shape == (48, 48, 3) and fitted.dtype == np.uint8
    x0, y0, x1, y1 = processor.fit_box((0, 0, width, height), height, width)
    outside = np.ones((48, 48), bool)
    outside[max(int(y0) - 3, 0) : int(np.ceil(y1)) + 3, max(int(x0) - 3, 0) : int(np.ceil(x1)) + 3] = False
    assert (fitted[outside] == CLIP_MEAN).all()
    assert max(x1 - x0, y1 - y0) == 48


@pytest.mark.parametrize("size", [24, 48, 96])
@given(height=st.integers(20, 90), width=st.integers(20, 90), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_rectangle_lies_after_fitting_where_fit_box_says(size, height, width, data):
    x0, y0 = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    x1, y1 = data.draw(st.integers(x0 + 8, width)), data.draw(st.integers(y0 + 8, height))
    # White on the padding's own colour: every edge of the rectangle, also one on the image's border, is then
    # where the interpolation is halfway between the two.
    image = np.full((height, width, 3), (122, 116, 104), np.uint8)
    image[y0:y1, x0:x1] = 255
    processor = ImageProcessor.square(size)
    weight = (processor(image)[0].astype(float).min(-1) - 104).clip(0) / 151
    left, top, right, bottom = processor.fit_box((x0, y0, x1, y1), height, width)
    centres = np.arange(size) + 0.5
    if right - left < 3 or bottom - top < 3:  # too small to be found by its threshold
        return
    rows, columns = centres[weight.max(1) > 0.5], centres[weight.max(0) > 0.5]
    np.testing.assert_allclose([columns.min() - 0.5, rows.min() - 0.5], [left, top], atol=1.01)
    np.testing.assert_allclose([columns.max() + 0.5, rows.max() + 0.5], [right, bottom], atol=1.01)
