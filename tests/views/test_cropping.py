"""Random crops, their geometry read back from an image whose colours are its coordinates."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vla_jax.views import random_resized_crop, resized_crop

HEIGHT, WIDTH = 64, 96
# Red counts columns, green rows, two levels a pixel: a crop shows where it was taken.
COORDINATES = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
COORDINATES[..., 0], COORDINATES[..., 1] = 2 * np.arange(WIDTH), 2 * np.arange(HEIGHT)[:, None]
_crop = jax.jit(random_resized_crop, static_argnames=("area", "aspect"))


def crop(seed, image=COORDINATES, **bounds):
    return np.asarray(_crop(jnp.array(image), jax.random.key(seed), **bounds))


def size_of(view):
    """(width, height) in pixels of the crop that a view of `COORDINATES` shows, from its slopes."""
    red, green = view[HEIGHT // 2, :, 0].astype(float), view[:, WIDTH // 2, 1].astype(float)
    middle_x, middle_y = slice(WIDTH // 4, 3 * WIDTH // 4), slice(HEIGHT // 4, 3 * HEIGHT // 4)
    slope_x = np.polyfit(np.arange(WIDTH)[middle_x], red[middle_x], 1)[0]
    slope_y = np.polyfit(np.arange(HEIGHT)[middle_y], green[middle_y], 1)[0]
    return slope_x / 2 * WIDTH, slope_y / 2 * HEIGHT


@pytest.mark.smoke
def test_a_constant_image_stays_constant():
    constant = np.full((HEIGHT, WIDTH, 3), (7, 130, 255), np.uint8)
    for seed in range(5):
        view = crop(seed, constant)
        assert view.dtype == np.uint8
        np.testing.assert_array_equal(view, constant)


@pytest.mark.parametrize("area", [(0.01, 0.2), (0.1, 0.1), (0.3, 0.5)])
def test_the_crops_area_and_aspect_lie_within_their_bounds(area):
    for seed in range(30):
        width, height = size_of(crop(seed, area=area))
        share, aspect = width * height / (WIDTH * HEIGHT), width / height
        assert area[0] * 0.93 - 0.002 <= share <= area[1] * 1.07 + 0.002
        assert 3 / 4 * 0.9 <= aspect <= 4 / 3 * 1.1


def test_areas_and_aspects_are_spread_over_their_bounds():
    sizes = [size_of(crop(seed)) for seed in range(60)]
    shares = [width * height / (WIDTH * HEIGHT) for width, height in sizes]
    logs = [math.log(width / height) for width, height in sizes]
    assert min(shares) < 0.04 and max(shares) > 0.17 and 0.08 < np.mean(shares) < 0.13
    assert min(logs) < -0.2 and max(logs) > 0.2


def test_crops_come_from_all_over_the_image():
    centres = np.array([crop(seed)[HEIGHT // 2, WIDTH // 2, :2] / 2 for seed in range(60)])
    assert (centres.min(0) < (0.25 * WIDTH, 0.3 * HEIGHT)).all()
    assert (centres.max(0) > (0.75 * WIDTH, 0.7 * HEIGHT)).all()


def test_the_key_fixes_the_crop():
    np.testing.assert_array_equal(crop(3), crop(3))
    assert (crop(3) != crop(4)).any()


def test_a_crop_of_the_whole_image_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    np.testing.assert_array_equal(crop(0, image, area=(1.0, 1.0), aspect=(1.0, 1.0)), image)


@pytest.mark.parametrize(
    "box",
    [
        (10, 4, 40, 30),
        (0, 0, 13, 9),
        (83, 55, 96, 64),
        (0, 0, 96, 64),
        (3.3, 7.8, 51.1, 20.4),
        (70.6, 0.2, 95.9, 63.9),
    ],
)
def test_a_given_crop_is_what_pil_makes_of_it(box):
    """Of noise, where a misplaced pixel shows."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    expected = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box)
    made = np.asarray(resized_crop(jnp.array(noise), jnp.array(box, jnp.float32)))
    assert np.abs(made.astype(int) - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("aspect", [(1 / 5, 5.0), (3 / 4, 4 / 3), (3.0, 4.0)])
def test_the_share_is_kept_where_not_every_aspect_fits(share, aspect):
    for seed in range(10):
        width, height = size_of(crop(seed, area=(share, share), aspect=aspect))
        assert width * height / (WIDTH * HEIGHT) == pytest.approx(share, rel=0.06)
        fitting = np.array([share * WIDTH / HEIGHT, WIDTH / (share * HEIGHT)])
        low, high = np.clip(aspect, *fitting)  # the nearest that fits, where none within bounds does
        assert low * 0.95 <= width / height <= high * 1.05


def test_a_batch_of_keys_gives_what_each_gives_alone():
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    together = jax.vmap(lambda key: random_resized_crop(jnp.array(COORDINATES), key))(keys)
    np.testing.assert_array_equal(together, [crop(seed) for seed in range(4)])


@pytest.mark.parametrize(
    "bounds",
    [
        {"area": (0.0, 0.2)},
        {"area": (0.3, 0.2)},
        {"area": (0.5, 1.5)},
        {"aspect": (0.0, 1.0)},
        {"aspect": (2.0, 1.0)},
    ],
)
def test_bounds_out_of_order_are_refused(bounds):
    with pytest.raises(ValueError, match="must be ordered and positive"):
        random_resized_crop(jnp.array(COORDINATES), jax.random.key(0), **bounds)
