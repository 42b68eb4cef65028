"""What the vision tower is given, pixels and order of features, against transformers."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from einops import rearrange
from PIL import Image

from tests.data.test_anyres import CASES
from tests.data.test_image_processing import theirs
from tests.shared_data import shared
from vla_jax.data.anyres import grid, layout
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.images import read_image
from vla_jax.data.preprocessor_config import pixel_statistics
from vla_jax.data.world import EvaluationWorld, WorldConfig

pytestmark = pytest.mark.parity

# As the checkpoints have them.
LLAVA = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336}, "crop_size": 336}
CONFIGS = {
    "llava 1.5": LLAVA,
    "llava 1.5, padded": LLAVA | {"image_processor_type": "LlavaImageProcessor", "do_pad": True},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}},
    "llava next": LLAVA | {"image_processor_type": "LlavaNextImageProcessor"},
}


def photographs():
    return [read_image(file) for file in sorted(shared("photos/images").glob("*.jpg"))]


def scenes():
    world = EvaluationWorld(WorldConfig(), 4)
    return [world[index].image for index in range(len(world))]


def pixels(config, image):
    """Ours, float32 [tiles y x 3], by the formula of vla_jax.views.normalise."""
    mean, std = (np.array(statistic, np.float32) for statistic in pixel_statistics(config))
    return (ImageProcessor.from_dict(config)(image).astype(np.float32) / 255 - mean) / std


def their_pixels(config, image):
    values = np.asarray(theirs(config)(Image.fromarray(image))["pixel_values"][0])
    return np.moveaxis(values if values.ndim == 4 else values[None], 1, -1)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("images", [photographs, scenes])
def test_pixels_are_those_of_transformers(images, name):
    given = images()
    assert len(given) >= 4
    for image in given:
        ours, expected = pixels(CONFIGS[name], image), their_pixels(CONFIGS[name], image)
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=1e-6, rtol=0)
        assert expected.std() > 0.1


@cache
def model(tile, pinpoints):
    """A small LlavaNextModel with a newline of its own."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(
            image_size=tile,
            patch_size=14,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
        ),
        image_grid_pinpoints=[list(pinpoint) for pinpoint in pinpoints],
    )
    built = transformers.LlavaNextModel(config).eval()
    with torch.no_grad():
        built.image_newline.copy_(torch.full((8,), 7.0))
    return SimpleNamespace(pack=built.pack_image_features, newline=built.image_newline, torch=torch)


@pytest.mark.parametrize("height, width, pinpoints, tile", CASES)
def test_features_are_packed_in_the_order_of_transformers(height, width, pinpoints, tile):
    llava, patches = model(tile, pinpoints), tile // 14
    rows, columns = grid(height, width, pinpoints, tile)
    features = np.random.default_rng(0).normal(size=(1 + rows * columns, patches**2, 8)).astype(np.float32)
    with llava.torch.no_grad():
        (expected,), (length,) = llava.pack(
            [llava.torch.from_numpy(features)],
            llava.torch.tensor([[height, width]]),
            vision_feature_select_strategy="default",
            image_newline=llava.newline,
        )
    table = np.concatenate([np.full((1, 8), 7, np.float32), rearrange(features, "tiles n d -> (tiles n) d")])
    order = layout(height, width, pinpoints, tile, patches)
    assert len(order) == int(length)
    np.testing.assert_array_equal(table[order], expected.numpy())
