"""Object removal, and the multigrid solver below it, against a sparse direct solve of the same equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image
from scipy import ndimage
from scipy.sparse.linalg import splu

from vla_jax.views import remove_object

RNG = np.random.default_rng(0)
SMALL = RNG.integers(0, 256, (21, 26, 3), np.uint8)
DISC = np.hypot(*np.mgrid[-10:11, -13:13]) < 6


def photograph(side=336):
    """Smooth colours and noise."""
    colours = Image.fromarray(RNG.integers(0, 256, (9, 9, 3), np.uint8)).resize((side, side), Image.BICUBIC)
    return np.clip(np.asarray(colours) + RNG.normal(0, 20, (side, side, 3)), 0, 255).astype(np.uint8)


def solved(values, mask):
    """Every masked pixel the mean of its neighbours, by Gaussian elimination in float64."""
    height, width = mask.shape
    along_y, along_x = (
        sparse.diags_array([np.ones(n - 1)] * 2, offsets=[1, -1], shape=(n, n)) for n in (height, width)
    )
    neighbours = sparse.kron(along_y, sparse.eye_array(width)) + sparse.kron(
        sparse.eye_array(height), along_x
    )
    laplacian = (sparse.diags_array(neighbours.sum(axis=1)) - neighbours).tocsr()
    hole = mask.ravel()
    filled = values.reshape(-1, 3).astype(float)
    inner, outer = laplacian[hole][:, hole], laplacian[hole][:, ~hole]
    filled[hole] = splu(inner.tocsc()).solve(-(outer @ filled[~hole]))
    return filled.reshape(values.shape)


def removed(image, mask, dilation=0, smoothing=0):
    made = remove_object(jnp.array(image), jnp.array(mask), dilation=dilation, smoothing=smoothing)
    assert made.dtype == jnp.uint8
    return np.asarray(made)


Y, X = np.mgrid[:336, :336]
LARGE = {
    "a disc of 200 pixels": np.hypot(X - 150, Y - 168) < 100,
    "half the image": X > 150,
    "all but a frame": (abs(X - 168) < 160) & (abs(Y - 168) < 160),
    "all but a corner": X + Y > 2,
    "waves": np.cos(0.05 * X + 0.02 * Y) + np.cos(0.07 * Y) > 0.2,
    "corridors": (X % 8 != 0) | ((Y + X // 8 % 2 * 330) % 336 < 6),
    "nine pixels of ten": RNG.random((336, 336)) < 0.9,
}


@pytest.mark.parametrize("mask", LARGE.values(), ids=LARGE)
def test_a_large_hole_is_within_a_level_of_the_direct_solution(mask):
    image = photograph()
    made = removed(image, mask)
    assert abs(made - solved(image, mask)).max() < 0.55  # half a level of it is rounding


@pytest.mark.smoke
def test_the_mask_is_filled_and_the_rest_stays_byte_for_byte():
    made = removed(SMALL, DISC)
    np.testing.assert_array_equal(made[~DISC], SMALL[~DISC])
    assert (made[DISC] != SMALL[DISC]).any(-1).mean() > 0.9


@pytest.mark.parametrize("dilation, smoothing", [(0, 0), (3, 3)])
def test_an_empty_mask_leaves_the_image_byte_for_byte(dilation, smoothing):
    np.testing.assert_array_equal(removed(SMALL, np.zeros(DISC.shape, bool), dilation, smoothing), SMALL)


@pytest.mark.parametrize("dilation, smoothing", [(0, 0), (3, 3)])
def test_a_mask_of_everything_gives_grey(dilation, smoothing):
    assert (removed(SMALL, np.ones(DISC.shape, bool), dilation, smoothing) == 128).all()


def test_an_object_on_an_even_ground_disappears():
    ground = np.full_like(SMALL, (30, 140, 250))
    image = np.where(DISC[..., None], SMALL, ground)
    np.testing.assert_array_equal(removed(image, DISC, 3, 3), ground)


def test_an_object_on_a_ramp_leaves_the_ramp():
    ramp = np.broadcast_to((9 * np.arange(26))[None, :, None], SMALL.shape).astype(np.uint8)
    np.testing.assert_array_equal(removed(np.where(DISC[..., None], SMALL, ramp), DISC), ramp)


def test_dilation_grows_the_mask_by_a_square():
    dot = DISC & (np.cumsum(DISC).reshape(DISC.shape) == 1)
    for mask in (DISC, dot):
        grown = ndimage.binary_dilation(mask, np.ones((7, 7)))
        np.testing.assert_array_equal(removed(SMALL, mask, 3, 3), removed(SMALL, grown, 0, 3))


def test_smoothing_takes_means_of_the_known_pixels_for_the_boundary():
    radius, means = 3, SMALL.astype(float)
    for y, x in np.argwhere(~DISC):
        window = slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), x + radius + 1)
        means[y, x] = SMALL[window][~DISC[window]].mean(0)
    made = removed(SMALL, DISC, smoothing=radius)
    assert abs(made[DISC] - solved(means, DISC)[DISC]).max() < 0.51
    np.testing.assert_array_equal(made[~DISC], SMALL[~DISC])


def test_smoothing_keeps_noise_from_streaking_into_the_hole():
    noisy = np.clip(RNG.normal(128, 30, SMALL.shape), 0, 255).astype(np.uint8)
    plain, smooth = (removed(noisy, DISC, smoothing=radius)[DISC].astype(float) for radius in (0, 3))
    assert smooth.std() < 0.5 * plain.std()


holes = st_numpy.arrays(bool, DISC.shape)


@given(mask=holes, seed=st.integers(0, 99))
@example(mask=np.eye(*DISC.shape, dtype=bool), seed=0)
@example(mask=~np.eye(*DISC.shape, dtype=bool), seed=1)
@settings(max_examples=30, deadline=None)
def test_a_hole_of_any_shape_is_solved_and_never_leaves_the_colours_around_it(mask, seed):
    image = np.random.default_rng(seed).integers(0, 256, SMALL.shape, np.uint8)
    made = removed(image, mask)
    np.testing.assert_array_equal(made[~mask], image[~mask])
    if mask.any() and not mask.all():
        assert abs(made - solved(image, mask)).max() < 0.51
        known = image[~mask]
        assert (made >= known.min(0)).all() and (made <= known.max(0)).all()


def test_a_batch_gives_what_each_image_gives_alone():
    images, masks = np.stack([SMALL, SMALL[::-1]]), np.stack([DISC, np.roll(DISC, 7, 1)])
    together = jax.jit(jax.vmap(lambda image, mask: remove_object(image, mask, dilation=0, smoothing=0)))(
        images, masks
    )
    alone = [removed(image, mask) for image, mask in zip(images, masks, strict=True)]
    assert abs(np.asarray(together, int) - alone).max() <= 1  # sums of floats come in another order


@pytest.mark.parametrize("options", [{"dilation": -1}, {"smoothing": -2}])
def test_negative_radii_are_refused(options):
    with pytest.raises(ValueError, match="must not be negative"):
        remove_object(jnp.array(SMALL), jnp.array(DISC), **options)
