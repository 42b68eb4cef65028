"""AnyRes picks the resolutions, and counts and orders the tokens, that transformers does."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vla_jax.data.anyres import best_resolution, fitted_size, grid, layout

LLAVA_NEXT = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
SMALL = ((42, 126), (84, 84), (84, 126), (210, 42), (126, 84))
EXTREME = [(1, 1), (337, 335), (100, 900), (900, 100), (1, 2000), (2000, 1), (3000, 7), (7, 3000), (480, 640)]
# Where a whole number of lines comes out a hair too small in floating point.
ROUNDED = [(205, 656), (110, 352), (328, 205), (352, 748)]


def around(pinpoints):
    """Each pinpoint, one pixel off in either direction, and the sizes nothing good can come of."""
    steps = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)]
    return EXTREME + ROUNDED + [(height + dy, width + dx) for height, width in pinpoints for dy, dx in steps]


CASES = [
    pytest.param(*size, pinpoints, tile, id=f"{size[0]}x{size[1]}-{tile}")
    for pinpoints, tile in ((LLAVA_NEXT, 336), (SMALL, 42))
    for size in dict.fromkeys(around(pinpoints))
]
assert len(CASES) >= 100


def their_number_of_tokens(height, width, pinpoints, tile, patch, strategy="default"):
    """As LlavaNextProcessor.replace_image_token counts them."""
    processing = pytest.importorskip("transformers.models.llava_next.processing_llava_next")
    images = pytest.importorskip("transformers.models.llava_next.image_processing_pil_llava_next")
    # Its constructor wants a tokenizer, which has no part in the count.
    processor = object.__new__(processing.LlavaNextProcessor)
    processor.image_processor = images.LlavaNextImageProcessorPil(
        image_grid_pinpoints=[list(each) for each in pinpoints]
    )
    processor.patch_size, processor.num_additional_image_tokens = patch, 1
    return processor._get_number_of_features(height, width, tile, tile) - (strategy == "default")


@pytest.mark.parametrize("height, width, pinpoints, tile", CASES)
def test_transformers_chooses_the_same_and_counts_as_many_tokens(height, width, pinpoints, tile):
    theirs = pytest.importorskip("transformers.image_processing_utils")
    best = best_resolution(height, width, pinpoints)
    assert best == theirs.select_best_resolution((height, width), pinpoints)
    image = np.broadcast_to(np.uint8(0), (3, height, width))
    assert fitted_size(height, width, best) == theirs.get_patch_output_size(image, best, "channels_first")
    order = layout(height, width, pinpoints, tile, tile // 14)
    assert len(order) == their_number_of_tokens(height, width, pinpoints, tile, 14)


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    patches=st.integers(1, 7),
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6),
)
@settings(max_examples=200, deadline=None)
@example(height=1, width=3000, patches=4, shapes=[(2, 1)])
@example(height=3000, width=1, patches=4, shapes=[(1, 2)])
def test_any_image_is_read_without_the_padding_row_by_row(height, width, patches, shapes):
    tile = 14 * patches
    pinpoints = tuple((rows * tile, columns * tile) for rows, columns in shapes)
    order = layout(height, width, pinpoints, tile, patches)
    assert order.dtype == np.int32
    assert len(order) == their_number_of_tokens(height, width, pinpoints, tile, 14)

    rows, columns = grid(height, width, pinpoints, tile)
    assert (rows * tile, columns * tile) == best_resolution(height, width, pinpoints)
    base, rest = order[: patches**2], order[patches**2 :]
    np.testing.assert_array_equal(base, 1 + np.arange(patches**2))
    features = rest[rest != 0]
    assert len(set(features.tolist())) == len(features)
    if len(features):
        assert patches**2 < features.min() and features.max() <= (1 + rows * columns) * patches**2
    if len(rest) == 0:  # every line counts as padding
        return
    lines = rest.reshape(np.count_nonzero(rest == 0), -1)
    assert (lines[:, -1] == 0).all()
    # Where a feature's patch lies in the grid: its column depends on the token's place in a line alone.
    place = lines[:, :-1] - 1 - patches**2
    tile_index, inside = np.divmod(place, patches**2)
    x = tile_index % columns * patches + inside % patches
    y = tile_index // columns * patches + inside // patches
    assert (x == x[:1]).all() and (np.diff(x) == 1).all()
    assert (y == y[:, :1]).all() and (np.diff(y, axis=0) == 1).all()


@pytest.mark.smoke
def test_tokens_go_through_the_tiles_line_by_line():
    # Two tiles side by side, each of two by two patches: 5 6   9 10
    #                                                     7 8  11 12
    order = layout(20, 40, ((20, 40),), tile=20, patches=2)
    np.testing.assert_array_equal(order, [1, 2, 3, 4, 5, 6, 9, 10, 0, 7, 8, 11, 12, 0])


def test_lines_and_columns_of_padding_are_left_out():
    # Two by two tiles of two by two patches; the image is as wide as they are, and half as high.
    np.testing.assert_array_equal(
        layout(20, 40, ((40, 40),), tile=20, patches=2)[4:], [7, 8, 11, 12, 0, 13, 14, 17, 18, 0]
    )
    np.testing.assert_array_equal(
        layout(40, 20, ((40, 40),), tile=20, patches=2)[4:], [6, 9, 0, 8, 11, 0, 14, 17, 0, 16, 19, 0]
    )


def test_of_an_extremely_long_image_only_newlines_or_nothing_may_be_left():
    np.testing.assert_array_equal(layout(2000, 1, ((40, 40),), tile=20, patches=2), [1, 2, 3, 4, 0, 0, 0, 0])
    np.testing.assert_array_equal(layout(1, 2000, ((40, 40),), tile=20, patches=2), [1, 2, 3, 4])


def test_of_equally_good_resolutions_the_smaller_and_then_the_first_is_taken():
    assert best_resolution(10, 10, ((40, 40), (20, 20))) == (20, 20)
    assert best_resolution(10, 10, ((10, 40), (40, 10))) == (10, 40)
    assert best_resolution(10, 10, ((40, 10), (10, 40))) == (40, 10)
