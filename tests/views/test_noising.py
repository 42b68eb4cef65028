"""Noise: its schedule against the product written out, its moments, its bytes, its places."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from vla_jax.views import cumulative_alpha, diffusion_noise, rectangle_noise

SIZE = 96
KEY = jax.random.key(0)
PICTURE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def even(level, size=SIZE):
    """An image of one grey."""
    return jnp.full((size, size, 3), level, jnp.uint8)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# --- the schedule ------------------------------------------------------------------------------------


def product(step):
    """Equations 8 and 9 of the study, factor by factor."""
    alpha = 1.0
    for k in range(1, step + 1):
        alpha *= 1 - (sigmoid(-6 + 12 * k / 1000) * (0.5e-2 - 1e-5) + 1e-5)
    return alpha


def cumulative_product(step):
    """As POVID's code does it: 1000 values from -6 to 6, the cumulative product read at index `step`."""
    betas = [sigmoid(x) * (0.5e-2 - 1e-5) + 1e-5 for x in np.linspace(-6, 6, 1000)]
    return np.cumprod([1 - beta for beta in betas])[step]


@pytest.mark.smoke
@pytest.mark.parametrize("step", [1, 100, 300, 500, 1000])
def test_what_is_left_of_the_image_is_the_closed_product(step):
    assert cumulative_alpha(step) == pytest.approx(product(step), rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 100, 500, 999])
def test_compatible_with_the_reference_it_is_its_cumulative_product(step):
    assert cumulative_alpha(step, reference_compatible=True) == pytest.approx(
        cumulative_product(step), rel=1e-12
    )


def test_the_published_value_at_500_steps():
    assert math.sqrt(cumulative_alpha(500)) == pytest.approx(0.86344, abs=1e-5)
    assert math.sqrt(cumulative_alpha(500, reference_compatible=True)) == pytest.approx(0.86302, abs=1e-5)


def test_no_step_leaves_the_image_byte_for_byte():
    assert cumulative_alpha(0) == 1
    np.testing.assert_array_equal(diffusion_noise(jnp.array(PICTURE), KEY, 0), PICTURE)


@pytest.mark.parametrize(
    "step, compatible, last", [(-1, False, 1000), (1001, False, 1000), (-1, True, 999), (1000, True, 999)]
)
def test_a_step_outside_the_schedule_is_refused(step, compatible, last):
    with pytest.raises(ValueError, match=f"must lie in 0..{last}"):
        diffusion_noise(jnp.array(PICTURE), KEY, step, reference_compatible=compatible)


# --- noise over the whole image ----------------------------------------------------------------------


@pytest.mark.parametrize("step", [100, 200])
def test_mean_and_deviation_where_nothing_is_clipped(step):
    noised = np.asarray(diffusion_noise(even(128), KEY, step), float)
    alpha = product(step)
    deviation = 255 * math.sqrt(1 - alpha)
    assert deviation < 128 / 3, "else clipping shows in the moments"
    assert noised.mean() == pytest.approx(128 * math.sqrt(alpha), abs=4 * deviation / math.sqrt(noised.size))
    assert noised.std() == pytest.approx(deviation, rel=0.02)


def test_what_leaves_the_range_is_clipped():
    noised = np.asarray(diffusion_noise(even(100), KEY, 500))
    mean, deviation = 100 * math.sqrt(product(500)), 255 * math.sqrt(1 - product(500))
    assert (noised == 0).mean() == pytest.approx(norm.cdf((0.5 - mean) / deviation), abs=0.01)
    assert (noised == 255).mean() == pytest.approx(norm.sf((254.5 - mean) / deviation), abs=0.01)


def test_compatible_with_the_reference_it_is_cut_off_and_wraps_modulo_256():
    noised = diffusion_noise(jnp.array(PICTURE), KEY, 500, reference_compatible=True)
    alpha, noise = cumulative_product(500), np.asarray(jax.random.normal(KEY, PICTURE.shape), float)
    levels = 255 * (math.sqrt(alpha) * (PICTURE / 255) + math.sqrt(1 - alpha) * noise)
    expected = levels.astype(np.int32) % 256
    assert ((levels < 0) | (levels > 255)).mean() > 0.2, "the case this is about"
    assert (noised != expected).mean() < 0.001  # float32 rounds a few to the other side of a whole level
    distance = (np.asarray(noised, int) - expected + 128) % 256 - 128
    assert abs(distance).max() <= 1


def test_clipped_and_wrapped_agree_where_nothing_leaves_the_range():
    clipped, wrapped = (
        np.asarray(diffusion_noise(even(128), KEY, 100, reference_compatible=compatible), int)
        for compatible in (False, True)
    )
    assert abs(clipped - wrapped).max() <= 2  # rounded or cut off; 100 or 101 factors


def test_the_key_fixes_the_noise():
    first, again = (diffusion_noise(jnp.array(PICTURE), KEY) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != diffusion_noise(jnp.array(PICTURE), jax.random.key(1))).any()


@pytest.mark.parametrize("make", [diffusion_noise, rectangle_noise])
def test_a_batch_gives_what_each_image_gives_alone(make):
    images = jnp.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]])
    keys = jax.random.split(KEY, 3)
    alone = [make(image, key) for image, key in zip(images, keys, strict=True)]
    np.testing.assert_array_equal(jax.jit(jax.vmap(make))(images, keys), alone)


# --- noise in rectangles -----------------------------------------------------------------------------


def changed_by(seed, **options):
    """Which pixels of mid-grey the noise changes [y x]."""
    noised = rectangle_noise(even(128), jax.random.key(seed), **options)
    return np.asarray((noised != 128).any(-1))


def bounds(changed):
    """(rows, columns) between the outermost pixels changed."""
    rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def test_one_rectangle_is_noised_throughout_and_nothing_else():
    for seed in range(10):
        changed = changed_by(seed, rectangles=1)
        assert changed[bounds(changed)].mean() > 0.99  # three channels seldom keep their level


def test_its_sides_are_within_their_bounds_and_spread_over_them():
    found = [bounds(changed_by(seed, rectangles=1, sizes=(0.2, 0.6))) for seed in range(40)]
    shares = np.array([(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in found])
    shares = shares / SIZE
    assert shares.min() >= 0.2 - 1 / SIZE and shares.max() <= 0.6 + 1 / SIZE
    assert shares.min() < 0.27 and shares.max() > 0.53 and abs(shares.mean() - 0.4) < 0.06


def test_it_lies_anywhere_in_the_image():
    found = [bounds(changed_by(seed, rectangles=1, sizes=(0.2, 0.6))) for seed in range(40)]
    for axis in range(2):
        assert min(place[axis].start for place in found) < 0.1 * SIZE
        assert max(place[axis].stop for place in found) > 0.9 * SIZE


def test_the_rest_stays_byte_for_byte():
    key = jax.random.key(5)
    changed = changed_by(5)
    noised = np.asarray(rectangle_noise(jnp.array(PICTURE), key))
    # Of what the noise leaves alone on mid-grey, a few pixels lie in a rectangle and kept their level.
    outside = ~changed
    assert 0.1 < outside.mean() < 1
    assert (noised[outside] != PICTURE[outside]).any(-1).mean() < 0.001


def test_three_rectangles_cover_more_than_one():
    one, three = (np.mean([changed_by(seed, rectangles=n).mean() for seed in range(30)]) for n in (1, 3))
    assert 1.7 * one < three < 3 * one  # less than three times: they overlap


def test_moments_inside_also_where_rectangles_overlap():
    noised = np.asarray(rectangle_noise(even(128), KEY, rectangles=8, std=0.1, sizes=(0.9, 1.0)), float)
    inside = noised[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    assert inside.std() == pytest.approx(25.5, rel=0.03)
    assert inside.mean() == pytest.approx(128, abs=4 * 25.5 / math.sqrt(inside.size))


@pytest.mark.parametrize(
    "options", [{"rectangles": 0}, {"sizes": (0.0, 0.5)}, {"sizes": (0.5, 0.2)}, {"sizes": (0.5, 1.1)}]
)
def test_rectangles_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="rectangle_noise"):
        rectangle_noise(jnp.array(PICTURE), KEY, **options)
