"""Progressive masks against a reference painted by hand with NumPy and PIL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vla_jax.views import ellipse_outline, progressive_masks
from vla_jax.views.masking import masked_rectangle

RED = (255, 0, 0)
SIZE = 24
IMAGE = np.random.default_rng(0).integers(1, 250, (SIZE, SIZE, 3), np.uint8)
# A box whose nearest image border is on the named side.
NEAREST = {
    "left": (2, 6, 14, 17),
    "top": (7, 1, 17, 13),
    "right": (9, 6, 22, 18),
    "bottom": (6, 10, 17, 23),
}


def pixels(length, share):
    """Whole pixels of a share, halves rounded to even as NumPy does."""
    return int(np.round(np.float32(share) * np.float32(length)))


def painted(box, side, share):
    """The image with `share` of `box` black, painted with PIL from `side`."""
    x0, y0, x1, y1 = box
    wide, high = pixels(x1 - x0, share), pixels(y1 - y0, share)
    left, top, right, bottom = {
        "left": (x0, y0, x0 + wide, y1),
        "top": (x0, y0, x1, y0 + high),
        "right": (x1 - wide, y0, x1, y1),
        "bottom": (x0, y1 - high, x1, y1),
    }[side]
    picture = Image.fromarray(IMAGE)
    if right > left and bottom > top:  # PIL's rectangles include their last row and column.
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=(0, 0, 0))
    return np.asarray(picture), (left, top, right, bottom)


def views(box, num_views=5, image=IMAGE, **options):
    return np.asarray(progressive_masks(jnp.array(image), jnp.array(box, jnp.float32), num_views, **options))


@pytest.mark.smoke
@pytest.mark.parametrize("num_views", [2, 3, 4, 5])
@pytest.mark.parametrize("side", NEAREST)
def test_each_view_masks_its_share_from_the_side_nearest_the_border(side, num_views):
    made = views(NEAREST[side], num_views, outline=False)
    for i, view in enumerate(made):
        expected, _ = painted(NEAREST[side], side, i / (num_views - 1))
        np.testing.assert_array_equal(view, expected, err_msg=f"view {i}")


@pytest.mark.parametrize("outline", [True, False])
@pytest.mark.parametrize("side", NEAREST)
def test_the_first_view_is_the_image_byte_for_byte(side, outline):
    first = views(NEAREST[side], outline=outline)[0]
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, IMAGE)


def test_the_last_view_masks_the_whole_box_and_nothing_else():
    x0, y0, x1, y1 = NEAREST["left"]
    black = (views(NEAREST["left"], outline=False)[-1] == 0).all(-1)
    assert black[y0:y1, x0:x1].all() and black.sum() == (y1 - y0) * (x1 - x0)


@pytest.mark.parametrize(
    "box, side",
    [
        ((6, 6, 18, 18), "left"),  # the same distance everywhere
        ((8, 6, 16, 18), "top"),  # top and bottom
        ((8, 7, 18, 18), "right"),  # right and bottom
        ((0, 0, 24, 24), "left"),
    ],
)
def test_ties_go_to_left_then_top_then_right_then_bottom(box, side):
    np.testing.assert_array_equal(views(box, 3, outline=False)[1], painted(box, side, 0.5)[0])


@pytest.mark.parametrize(
    "box, clipped, side",
    [
        ((-5, 6, 8, 16), (0, 6, 8, 16), "left"),
        ((6, -3, 16, 9), (6, 0, 16, 9), "top"),
        ((15, 6, 40, 16), (15, 6, 24, 16), "right"),
        ((6, 15, 16, 99), (6, 15, 16, 24), "bottom"),
    ],
)
def test_a_box_partly_outside_is_clipped_before_shares_are_taken(box, clipped, side):
    for i, view in enumerate(views(box, 5, outline=False)):
        np.testing.assert_array_equal(view, painted(clipped, side, i / 4)[0])


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (30, 30, 40, 40), (0, 0, 0, 0)])
def test_an_empty_box_masks_nothing(box):
    np.testing.assert_array_equal(views(box), np.stack([IMAGE] * 5))


def test_fractional_boxes_are_rounded_to_whole_pixels():
    np.testing.assert_array_equal(views((1.6, 6.4, 13.7, 16.8)), views((2, 6, 14, 17)))


@pytest.mark.parametrize("width", [1.0, 2.0])
@pytest.mark.parametrize("side", NEAREST)
def test_the_ellipse_lies_in_the_masked_rectangle_and_touches_its_sides(side, width):
    made = views(NEAREST[side], 5, outline_width=width)
    for i in range(1, 5):
        expected, (x0, y0, x1, y1) = painted(NEAREST[side], side, i / 4)
        red = (made[i] == RED).all(-1)
        np.testing.assert_array_equal(made[i][~red], expected[~red])
        rows, columns = np.nonzero(red)
        assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (y0, y1, x0, x1)
        if min(x1 - x0, y1 - y0) > 4 * width:
            assert not red[(y0 + y1) // 2, (x0 + x1) // 2], "the ellipse is an outline, not a disc"


def test_the_ellipse_is_the_one_pil_draws_up_to_a_pixel_of_its_line():
    rectangle = (3, 5, 21, 19)
    ours = np.asarray(
        ellipse_outline(jnp.zeros((SIZE, SIZE, 3), jnp.uint8), jnp.array(rectangle, jnp.float32))
    )
    canvas = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(canvas).ellipse((3, 5, 20, 18), outline=255)
    theirs, line = np.asarray(canvas) > 0, ours[..., 0] > 0

    def near(other):
        padded = np.pad(other, 1)
        return np.any(
            [padded[1 + y : 1 + y + SIZE, 1 + x : 1 + x + SIZE] for y in (-1, 0, 1) for x in (-1, 0, 1)], 0
        )

    assert near(theirs)[line].all() and near(line)[theirs].all()


def exact_line(height, width, rectangle, line_width):
    """(on the line, too near to an ellipse for float32 to say) of every pixel centre, in float64."""
    x0, y0, x1, y1 = rectangle
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    within, near = [], np.zeros((height, width), bool)
    for inset in (0.0, line_width):
        semi_x, semi_y = (x1 - x0) / 2 - inset, (y1 - y0) / 2 - inset
        if semi_x <= 0 or semi_y <= 0:
            within.append(np.zeros((height, width), bool))
            continue
        distance = ((columns - (x0 + x1) / 2) / semi_x) ** 2 + ((rows - (y0 + y1) / 2) / semi_y) ** 2
        within.append(distance <= 1)
        near |= abs(distance - 1) < 1e-5
    return within[0] & ~within[1], near


LONG = np.random.default_rng(1).integers(1, 250, (31, 44, 3), np.uint8)
_drawn = jax.jit(ellipse_outline)
_listed = jax.jit(progressive_masks, static_argnums=2)


@st.composite
def boxes(draw):
    """A box in `LONG`, empty ones included."""
    height, width, _ = LONG.shape
    (x0, x1), (y0, y1) = (sorted(draw(st.integers(0, n)) for _ in range(2)) for n in (width, height))
    return x0, y0, x1, y1


@given(rectangle=boxes(), width=st.sampled_from([0.5, 1.0, 2.0, 3.0]))
@settings(max_examples=60, deadline=None)
def test_the_line_is_between_two_ellipses(rectangle, width):
    made = np.asarray(_drawn(jnp.array(LONG), jnp.array(rectangle, jnp.float32), width))
    line, near = exact_line(*LONG.shape[:2], rectangle, width)
    expected = np.where(line[..., None], np.array(RED, np.uint8), LONG)
    np.testing.assert_array_equal(made[~near], expected[~near])


@given(box=boxes(), width=st.sampled_from([1.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_all_views_at_once_are_what_drawing_one_after_the_other_gives(box, width):
    at_once = _listed(jnp.array(LONG), jnp.array(box, jnp.float32), 5, outline_width=width)
    for i, view in enumerate(np.asarray(at_once)):
        rectangle = np.asarray(masked_rectangle(jnp.array(box, jnp.float32), i / 4, *LONG.shape[:2]))
        x0, y0, x1, y1 = rectangle.astype(int)
        plain = LONG.copy()
        plain[y0:y1, x0:x1] = 0
        np.testing.assert_array_equal(view, _drawn(jnp.array(plain), jnp.array(rectangle), width))


def test_without_the_outline_only_black_is_added():
    made = views(NEAREST["right"], outline=False)
    changed = (made != IMAGE).any(-1)
    assert not made[changed].any()


def test_a_batch_of_images_gives_what_each_gives_alone():
    images = np.stack([IMAGE, IMAGE[::-1], IMAGE.transpose(1, 0, 2), IMAGE[:, ::-1]])
    boxes = np.array(list(NEAREST.values()), np.float32)
    together = jax.jit(jax.vmap(lambda image, box: progressive_masks(image, box, 4)))(images, boxes)
    alone = [views(box, 4, image) for image, box in zip(images, boxes, strict=True)]
    np.testing.assert_array_equal(together, alone)


_masks = jax.jit(lambda box: progressive_masks(jnp.array(IMAGE), box, 5, outline=False))


@given(corners=st.tuples(*[st.floats(-10, 40, width=32)] * 4))
@settings(max_examples=40, deadline=None)
def test_every_view_masks_at_least_what_the_one_before_masked(corners):
    a, b, c, d = corners
    box = jnp.array([min(a, c), min(b, d), max(a, c), max(b, d)], jnp.float32)
    black = (np.asarray(_masks(box)) == 0).all(-1)
    assert not black[0].any()
    assert (black[1:] | ~black[:-1]).all()


@pytest.mark.parametrize("num_views", [1, 0])
def test_a_list_of_fewer_than_two_views_is_refused(num_views):
    with pytest.raises(ValueError, match="at least 2"):
        views(NEAREST["left"], num_views)
