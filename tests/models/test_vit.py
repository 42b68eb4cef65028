"""The vision tower: which token is which patch, which layers are computed, what a config may say."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import draw
from vla_jax.models import ViTConfig, vit

CONFIG = ViTConfig(
    image_size=24, patch_size=8, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2
)
forward = jax.jit(vit.forward, static_argnums=(1, 3))


@pytest.fixture(scope="module")
def params():
    return draw(vit.table(CONFIG, "vision."))


@pytest.fixture(scope="module")
def pixels():
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, 24, 24, 3)), jnp.float32)


@pytest.mark.smoke
def test_gives_the_class_token_and_one_token_a_patch(params, pixels):
    assert CONFIG.num_patches == 9
    assert forward(params, CONFIG, pixels, -1).shape == (2, 10, 16)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 2), (1, 0), (2, 1)])
def test_patches_follow_the_class_token_row_by_row(params, pixels, row, column):
    touched = pixels.at[:, 8 * row + 3, 8 * column + 5].add(1.0)
    before, after = (forward(params, CONFIG, image, 0) for image in (pixels, touched))
    (changed,) = np.flatnonzero(np.abs(after - before).max(axis=(0, 2)))
    assert changed == 1 + 3 * row + column


def test_the_patch_embedding_is_a_convolution(params, pixels):
    plain_norm = {"scale": jnp.ones(16), "bias": jnp.zeros(16)}
    bare = {**params, "position": jnp.zeros_like(params["position"]), "pre_norm": plain_norm}
    convolved = jax.lax.conv_general_dilated(
        pixels, params["patch"], (8, 8), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(2, 9, 16)
    expected = (convolved - convolved.mean(-1, keepdims=True)) / jnp.sqrt(
        convolved.var(-1, keepdims=True) + CONFIG.layer_norm_eps
    )
    np.testing.assert_allclose(forward(bare, CONFIG, pixels, 0)[:, 1:], expected, atol=1e-5)


def test_counts_feature_layers_from_both_ends(params, pixels):
    for first, last in [(0, -3), (1, -2), (2, -1)]:
        np.testing.assert_array_equal(
            forward(params, CONFIG, pixels, first), forward(params, CONFIG, pixels, last)
        )


def test_layers_behind_the_feature_layer_do_not_count(params, pixels):
    broken = {**params, "layers": jax.tree.map(lambda p: p.at[1].set(jnp.nan), params["layers"])}
    np.testing.assert_array_equal(forward(broken, CONFIG, pixels, -2), forward(params, CONFIG, pixels, -2))
    assert np.isnan(forward(broken, CONFIG, pixels, -1)).all()


@pytest.mark.parametrize("feature_layer", [-1, -2, 0])
def test_unrolled_layers_equal_scanned_layers(params, pixels, feature_layer):
    unrolled = replace(CONFIG, unroll=True)
    np.testing.assert_allclose(
        forward(params, unrolled, pixels, feature_layer),
        forward(params, CONFIG, pixels, feature_layer),
        atol=1e-5,
    )


def test_an_image_does_not_depend_on_its_batch_mates(params, pixels):
    np.testing.assert_allclose(
        forward(params, CONFIG, pixels, -1)[:1], forward(params, CONFIG, pixels[:1], -1), atol=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 11, "patch_size": 12}, "vision.image_size 11 is smaller than"),
        ({"hidden_size": 15, "num_heads": 2}, "hidden_size 15 is no multiple of"),
        ({"family": "resnet"}, "vision.family 'resnet' is not one of clip, siglip, dinov2"),
        ({"gated": True}, "vision.gated, qkv_bias and mask_token are DINOv2's to set; the family is 'clip'"),
        ({"pool_head": False}, "vision.pool_head is SigLIP's to set; the family is 'clip'"),
        ({"pixel_mean": (0.5, 0.5)}, "must be three numbers each"),
        ({"pixel_std": (0.5, 0.0, 0.5)}, "must be three numbers each, the latter positive"),
        ({"activation": "tanh"}, "activation 'tanh' is not known; known are quick_gelu"),
    ],
)
def test_a_config_that_cannot_be_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        ViTConfig(**fields)
