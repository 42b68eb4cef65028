"""Images become the pixels of transformers' processors; a box goes along; configs are read and written."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.test_anyres import CASES
from vla_jax.data import image_processing
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.preprocessor_config import pixel_statistics

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
SIZES = [(1, 1), (1, 200), (200, 1), (300, 7), (37, 53), (53, 37), (48, 48), (24, 24), (20, 31)]

MODULES = {
    "CLIPImageProcessor": "clip",
    "BitImageProcessor": "bit",
    "SiglipImageProcessor": "siglip",
    "LlavaImageProcessor": "llava",
    "LlavaNextImageProcessor": "llava_next",
}

# What a checkpoint may say, scaled down.
CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 48}, "crop_size": 48}
PAD = CLIP | {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
SIGLIP = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 40, "width": 48}}
PINPOINTS = [[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]]
NEXT = CLIP | {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": PINPOINTS}
CONFIGS = {
    "clip": CLIP,
    "wide crop": CLIP | {"crop_size": {"height": 30, "width": 41}},
    "odd crop, larger than the image": CLIP | {"crop_size": [53, 56]},
    "crop alone": CLIP | {"do_resize": False},
    "square": CLIP | {"size": {"height": 48, "width": 48}, "do_center_crop": False},
    "bilinear, lists": CLIP | {"resample": 2, "size": [50, 60], "crop_size": [49, 58]},
    "dinov2": CLIP | {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 55}},
    "siglip": SIGLIP,
    "siglip, cropped": SIGLIP | {"do_center_crop": True, "crop_size": 44},
    "llava": PAD | {"do_pad": False},
    "llava, padded": PAD,
    "llava, padded, no crop": PAD | {"do_center_crop": False},
    "llava, padded with siglip's mean, stretched": PAD
    | SIGLIP
    | {"image_processor_type": "LlavaImageProcessor"},
    "next": NEXT,
    "next, flags off": NEXT | {"do_resize": False, "do_center_crop": False, "do_pad": False},
    "next, square": NEXT | {"size": {"height": 48, "width": 48}, "resample": 1},
}


def noise(height, width):
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)


def their_class(kind):
    """The PIL class of transformers."""
    module = f"transformers.models.{MODULES[kind]}.image_processing_pil_{MODULES[kind]}"
    return getattr(pytest.importorskip(module), f"{kind}Pil")


def theirs(config):
    return their_class(config["image_processor_type"])(**config)


def their_tiles(processor, image):
    """uint8 [tiles y x 3]; a PIL image, since the channels of an array one pixel wide are guessed wrong."""
    pixels = processor(Image.fromarray(image), do_rescale=False, do_normalize=False)["pixel_values"][0]
    pixels = np.asarray(pixels)
    assert pixels.dtype == np.uint8
    return np.moveaxis(pixels if pixels.ndim == 4 else pixels[None], 1, -1)


# --- pixels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_tiles_are_those_of_transformers(name):
    ours, reference = ImageProcessor.from_dict(CONFIGS[name]), theirs(CONFIGS[name])
    for height, width in SIZES:
        image = noise(height, width)
        tiles, expected = ours(image), their_tiles(reference, image)
        assert tiles.shape[1:] == (*ours.tile_size, 3) and tiles.dtype == np.uint8
        np.testing.assert_array_equal(tiles, expected, err_msg=f"{height} x {width}")


@pytest.mark.parametrize("height, width, pinpoints, tile", CASES)
def test_anyres_cuts_an_image_into_the_tiles_of_transformers(height, width, pinpoints, tile):
    config = NEXT | {
        "size": {"shortest_edge": tile},
        "crop_size": tile,
        "image_grid_pinpoints": list(pinpoints),
    }
    image = noise(height, width)
    tiles = ImageProcessor.from_dict(config)(image)
    assert len(tiles) > 1
    np.testing.assert_array_equal(tiles, their_tiles(theirs(config), image))


@pytest.mark.smoke
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(1, 60))
@settings(max_examples=100, deadline=None)
@example(height=24, width=24, size=24)
@example(height=1, width=1, size=24)
@example(height=1, width=2000, size=24)
@example(height=3000, width=7, size=24)
def test_square_is_what_pil_pastes_and_resizes(height, width, size):
    image, processor = noise(height, width), ImageProcessor.square(size)
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(Image.fromarray(image), (left, top))
    expected = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(processor(image), expected[None])
    x0, y0, x1, y1 = processor.fit_box((0.0, 0.25 * height, 0.5 * width, float(height)), height, width)
    np.testing.assert_allclose([x0, x1], np.array([left, left + 0.5 * width]) * size / side, atol=1e-9)
    np.testing.assert_allclose(
        [y0, y1], np.array([top + 0.25 * height, top + height]) * size / side, atol=1e-9
    )


@pytest.mark.parametrize("pixels_at_once", [1, 5000])
@pytest.mark.parametrize("resample", list(Image.Resampling))
def test_what_the_crop_drops_need_not_be_there_for_the_same_bytes(monkeypatch, resample, pixels_at_once):
    """The plain way, against which this is measured: all of the resized image, then the middle of it."""
    monkeypatch.setattr(image_processing, "_PIXELS_AT_ONCE", pixels_at_once)
    processor = ImageProcessor(20, (15, 18), resample=resample)
    for height, width in SIZES:
        image = noise(height, width)
        rows, columns = int(20 * height / min(height, width)), int(20 * width / min(height, width))
        whole = np.asarray(Image.fromarray(image).resize((columns, rows), resample))
        top, left = (rows - 15) // 2, (columns - 18) // 2
        np.testing.assert_array_equal(processor(image)[0], whole[top : top + 15, left : left + 18])


def test_an_extremely_long_image_is_small_enough_to_be_cropped():
    """Resized whole, the first would be two gigabytes."""
    processor = ImageProcessor(336, (336, 336))
    assert processor(noise(1, 6000)).shape == processor(noise(3000, 70)).shape == (1, 336, 336, 3)


# --- boxes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
@given(height=st.integers(20, 90), width=st.integers(20, 90), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_rectangle_lies_in_the_first_tile_where_fit_box_says(name, height, width, data):
    processor = ImageProcessor.from_dict(CONFIGS[name] | {"image_mean": [0.0, 0.0, 0.0]})
    x0, y0 = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    x1, y1 = data.draw(st.integers(x0 + 8, width)), data.draw(st.integers(y0 + 8, height))
    image = np.zeros((height, width, 3), np.uint8)
    image[y0:y1, x0:x1] = 255
    left, top, right, bottom = processor.fit_box((x0, y0, x1, y1), height, width)
    rows, columns = processor.tile_size
    assert 0 <= left <= right <= columns and 0 <= top <= bottom <= rows
    if right - left < 3 or bottom - top < 3:  # too small to be found by its threshold
        return
    inside = processor(image)[0, :, :, 0] > 127
    y, x = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    np.testing.assert_allclose([x[0], y[0], x[-1] + 1, y[-1] + 1], [left, top, right, bottom], atol=1.01)


def test_a_box_is_clipped_to_what_the_crop_leaves():
    processor = ImageProcessor.from_dict(CLIP)  # of 48 x 96 the columns from 24 to 72 are left
    assert processor.fit_box((0, 0, 48, 48), 48, 96) == (0, 0, 24, 48)
    assert processor.fit_box((0, 0, 20, 48), 48, 96) == (0, 0, 0, 48)
    assert processor.fit_box((96, 96, 192, 96), 96, 192) == (24, 48, 48, 48)


# --- configs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODULES)
def test_what_a_config_leaves_out_is_what_transformers_has(kind):
    reference = json.loads(their_class(kind)().to_json_string())
    assert reference["image_processor_type"] == kind
    bare = {"image_processor_type": kind, "size": None, "do_pad": None}
    if kind == "LlavaNextImageProcessor":  # its default tile does not divide its default pinpoints
        bare |= {"size": 336, "crop_size": 336}
        reference |= bare
    assert ImageProcessor.from_dict(bare) == ImageProcessor.from_dict(reference)
    mean, std = pixel_statistics(bare)
    assert (mean, std) == (tuple(reference["image_mean"]), tuple(reference["image_std"]))


@pytest.mark.parametrize(
    "config",
    [
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 48, "crop_size": 48},
        CLIP | {"image_processor_type": "CLIPImageProcessorFast", "crop_size": {"height": 48, "width": 48}},
        CLIP
        | {"image_processor_type": "CLIPImageProcessorPil", "device": None, "data_format": "channels_first"},
        CLIP | {"size": {"shortest_edge": 48, "longest_edge": None}, "processor_class": "LlavaProcessor"},
        CLIP | {"do_pad": True, "do_convert_rgb": None, "rescale_factor": 0.00392156862745098},
        {"processor_class": "LlavaProcessor", "patch_size": 14, "image_processor": CLIP},
    ],
)
def test_one_processor_is_written_in_many_ways(config):
    assert ImageProcessor.from_dict(config) == ImageProcessor(48, (48, 48))
    assert pixel_statistics(config) == (CLIP_MEAN, CLIP_STD)


def test_a_single_number_is_an_edge_unless_the_config_wants_squares():
    assert ImageProcessor.from_dict(CLIP | {"size": 50}).size == 50
    assert ImageProcessor.from_dict(CLIP | {"size": 50, "default_to_square": True}).size == (50, 50)


def test_statistics_are_the_configs_own():
    assert pixel_statistics(SIGLIP) == (HALF, HALF)
    assert pixel_statistics(SIGLIP | {"image_mean": [0.1, 0, 0.3], "image_std": 0.2}) == (
        (0.1, 0.0, 0.3),
        (0.2, 0.2, 0.2),
    )
    assert pixel_statistics(SIGLIP | {"do_normalize": False}) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read_as_it_was_also_by_transformers(name, tmp_path):
    auto = pytest.importorskip("transformers.models.auto.image_processing_auto")
    processor, statistics = ImageProcessor.from_dict(CONFIGS[name]), pixel_statistics(CONFIGS[name])
    written = processor.to_dict(*statistics)
    assert ImageProcessor.from_dict(written) == processor
    assert pixel_statistics(written) == statistics
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    reference = auto.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(reference).__name__ == written["image_processor_type"] + "Pil"
    assert (tuple(reference.image_mean), tuple(reference.image_std)) == statistics
    for height, width in SIZES:
        image = noise(height, width)
        np.testing.assert_array_equal(processor(image), their_tiles(reference, image))


def test_a_square_is_written_with_the_statistics_whose_mean_it_pads_with():
    for square, mean in (
        (ImageProcessor.square(48), CLIP_MEAN),
        (ImageProcessor.square(48, (127,) * 3), HALF),
    ):
        assert ImageProcessor.from_dict(square.to_dict(mean, CLIP_STD)) == square
    with pytest.raises(ValueError, match=r"pad_to_square is \(122, 116, 104\).*\(127, 127, 127\)"):
        ImageProcessor.square(48).to_dict(HALF, HALF)


@pytest.mark.parametrize(
    "field, value, supported",
    [
        ("image_processor_type", "ViTImageProcessor", "LlavaNextImageProcessor"),
        ("image_processor_type", None, "CLIPImageProcessor"),
        ("do_rescale", False, "true"),
        ("rescale_factor", 1 / 127.5, "1/255"),
        ("rescale_factor", "1/255", "1/255"),
        ("do_resize", "yes", "true and false"),
        ("size", {"longest_edge": 48}, "shortest_edge"),
        ("size", {"shortest_edge": 48, "longest_edge": 96}, "shortest_edge"),
        ("size", {"shortest_edge": 0}, "shortest_edge"),
        ("size", [48, 48, 3], "height, width"),
        ("size", {"height": 48.5, "width": 48}, "height, width"),
        ("crop_size", {"shortest_edge": 48}, "height, width"),
        ("crop_size", "48", "height, width"),
        ("do_center_crop", False, "crop_size"),
        ("resample", 17, "BICUBIC"),
        ("resample", "bicubic", "BICUBIC"),
        ("image_mean", [0.5, 0.5], "red, green, blue"),
        ("image_std", "0.5", "red, green, blue"),
        ("use_square_size", True, "false"),
        ("pad_size", {"height": 60, "width": 60}, "null"),
        ("image_grid_pinpoints", [], "height, width"),
        ("image_grid_pinpoints", "(1x1),...,(6x6)", "height, width"),
        ("image_grid_pinpoints", [48, 96], "height, width"),
        ("image_grid_pinpoints", [[48, 100]], "multiple"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(field, value, supported):
    config = (NEXT if field == "image_grid_pinpoints" else CLIP) | {field: value}
    if field == "pad_size":
        config |= {"do_pad": True}
    with pytest.raises(ValueError, match=f"(?s){field}.*{supported}"):
        ImageProcessor.from_dict(config)
        pixel_statistics(config)


def test_tiles_of_another_size_than_the_base_image_are_refused():
    for wrong in ({"crop_size": 24}, {"size": {"height": 48, "width": 96}}, {"crop_size": [48, 96]}):
        with pytest.raises(ValueError, match="crop_size is .* a square as large as size"):
            ImageProcessor.from_dict(NEXT | wrong)


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ({"size": None}, "size None without a crop"),
        ({"size": 48}, "size 48 without a crop"),
        ({"size": None, "crop": (48, 48), "pinpoints": ((48, 48),)}, "pinpoints need one square tile"),
        ({"size": (48, 96), "pinpoints": ((48, 96),)}, "pinpoints need one square tile"),
        ({"size": 48, "pad_to_square": (0, 0, 0), "pinpoints": ((48, 48),)}, "no padding to a square"),
        ({"size": 48, "pinpoints": ((48, 50),)}, "multiple of the tile's side, 48"),
    ],
)
def test_a_processor_that_contradicts_itself_is_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        ImageProcessor(**arguments)
