"""Images of every kind that data sets hold, and files that only look like images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.broken_images import HTML, PIXELS, bomb, encoded, half_a_jpeg
from tests.shared_data import shared
from vla_jax.data.images import ImageBytes, ImageFile, Pixels, UnreadableImageError

HEIGHT, WIDTH = PIXELS.shape[:2]
GREY = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 100


@pytest.mark.smoke
def test_files_bytes_and_arrays_say_the_same(tmp_path):
    content = encoded(Image.fromarray(PIXELS))
    (tmp_path / "a.png").write_bytes(content)
    for image in (ImageFile(tmp_path / "a.png"), ImageBytes(content), Pixels(PIXELS)):
        assert image.size == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(image.pixels(), PIXELS)
        np.testing.assert_array_equal(ImageBytes(image.encoded()).pixels(), PIXELS)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_modes_become_rgb_as_pil_converts_them(mode):
    image = Image.fromarray(PIXELS).convert(mode)
    read = ImageBytes(encoded(image))
    np.testing.assert_array_equal(read.pixels(), np.asarray(image.convert("RGB")))
    assert read.size == (HEIGHT, WIDTH)


def test_cmyk_photographs_are_read():
    plain = np.broadcast_to(np.array([200, 30, 90], np.uint8), (HEIGHT, WIDTH, 3))
    read = ImageBytes(encoded(Image.fromarray(plain).convert("CMYK"), "jpeg", quality=95)).pixels()
    assert np.abs(read.astype(int) - plain).max() < 6


def turned(pixels, orientation):
    """As a viewer shows it: EXIF says how the camera was held."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels, 1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind, wide", [(k, w) for k in ("png", "tiff") for w in (0, 1)] + [("webp", 0)])
def test_photographs_stand_upright(orientation, kind, wide):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "webp" else {}
    read = ImageBytes(encoded(Image.fromarray(GREY if wide else PIXELS), kind, exif=exif, **lossless))
    plain = np.round(GREY / 257).astype(np.uint8)[..., None].repeat(3, -1) if wide else PIXELS
    np.testing.assert_array_equal(read.pixels(), turned(plain, orientation))
    assert read.size == read.pixels().shape[:2]


def test_photographs_of_the_commonest_kind_stand_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    flat = np.zeros_like(PIXELS)
    flat[:, WIDTH // 2 :] = 200
    read = ImageBytes(encoded(Image.fromarray(flat), "jpeg", exif=exif, quality=95))
    assert np.abs(read.pixels().astype(int) - turned(flat, 6)).mean() < 2
    assert read.size == read.pixels().shape[:2] == (WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_grey_values_of_16_bits_are_scaled_not_cut_off(kind):
    read = ImageBytes(encoded(Image.fromarray(GREY), kind)).pixels()
    np.testing.assert_array_equal(
        read, np.round(GREY / 65535 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    )
    assert 0 < read.mean() < 255


def test_of_an_animation_the_first_frame_is_read():
    first, second = (Image.fromarray(frame).quantize(32) for frame in (PIXELS, 255 - PIXELS))
    content = encoded(first, "gif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(ImageBytes(content).pixels(), np.asarray(first.convert("RGB")))


BROKEN = {
    "empty": (b"", "cannot be read"),
    "html": (HTML, "cannot be read"),
    "half a jpeg": (half_a_jpeg(), "cannot be read"),
    "half a png": (encoded(Image.fromarray(PIXELS))[:200], "cannot be read"),
    "30,000 x 30,000": (bomb(30_000), r"cannot be read|of 30000x30000 pixels"),
    "10,000 x 10,000": (bomb(10_000), "of 10000x10000 pixels"),
    "floats": (encoded(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "tiff"), "beyond 16 bits"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_whole_image_is_refused_by_name(tmp_path, case):
    content, problem = BROKEN[case]
    (tmp_path / "b.jpg").write_bytes(content)
    for image in (ImageFile(tmp_path / "b.jpg"), ImageBytes(content, "b.jpg")):
        with pytest.raises(UnreadableImageError, match=rf"({problem}).*b\.jpg|b\.jpg.*({problem})"):
            image.pixels()


def test_a_file_that_is_missing_is_refused_by_name(tmp_path):
    for look in (lambda image: image.size, lambda image: image.pixels()):
        with pytest.raises(UnreadableImageError, match=r"an image that is missing: .*gone\.jpg"):
            look(ImageFile(tmp_path / "gone.jpg"))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["avif", "tiff", "gif", "webp", "jpeg2000", "bmp", "mpo"]))
def test_an_image_of_any_kind_broken_anywhere_is_read_or_refused(data, kind):
    """Decoders raise errors of every kind; one only may come out."""
    content = bytearray(encoded(Image.fromarray(PIXELS), kind))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=20)):
        content[place] = data.draw(st.integers(0, 255))
    image = ImageBytes(bytes(content))
    try:
        assert image.pixels().shape == (*image.size, 3)
    except UnreadableImageError as error:
        assert error.problem and error.remedy


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_photograph_broken_anywhere_is_read_or_refused(data):
    """Nothing else may come of it: no other error, no array of another shape."""
    photographs = sorted(shared("photos/images").glob("*.jpg"))[:3]
    content = bytearray(data.draw(st.sampled_from(photographs)).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=20)):
        content[place] = data.draw(st.integers(0, 255))
    image = ImageBytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        pixels = image.pixels()
    except UnreadableImageError as error:
        assert error.problem and error.remedy
    else:
        assert pixels.dtype == np.uint8 and pixels.shape == (*image.size, 3)
