"""Vision and text towers against transformers' with the same weights: hidden states and pooled outputs."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from tests.parity.pytorch_models import channels_first, loud, params_of, to_torch  # noqa: E402
from vla_jax.models import ViTConfig, clip, vit  # noqa: E402
from vla_jax.models.clip import ClipConfig, TextTowerConfig  # noqa: E402

pytestmark = pytest.mark.parity

SHAPE = {
    "image_size": 40,
    "patch_size": 8,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
}
OURS = {"image_size": 40, "patch_size": 8, "hidden_size": 36, "num_layers": 3, "num_heads": 3}


def clip_tower(activation):
    theirs = transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(**SHAPE, intermediate_size=50, hidden_act=activation)
    )
    return theirs, ViTConfig(**OURS, intermediate_size=50, activation=activation), {}


def siglip_tower():
    config = transformers.SiglipVisionConfig(**SHAPE, intermediate_size=50, hidden_act="gelu_pytorch_tanh")
    ours = ViTConfig(
        **OURS, intermediate_size=50, activation="gelu_pytorch_tanh", layer_norm_eps=1e-6, family="siglip"
    )
    return transformers.SiglipVisionModel(config), ours, {"interpolate_pos_encoding": True}


def dinov2_tower(gated=False, qkv_bias=True):
    config = transformers.Dinov2Config(**SHAPE, mlp_ratio=2, use_swiglu_ffn=gated, qkv_bias=qkv_bias)
    ours = ViTConfig(
        **OURS,
        intermediate_size=48 if gated else 72,
        activation="gelu",
        layer_norm_eps=1e-6,
        family="dinov2",
        gated=gated,
        qkv_bias=qkv_bias,
    )
    return transformers.Dinov2Model(config), ours, {}


TOWERS = {
    "clip": lambda: clip_tower("quick_gelu"),
    "clip with gelu": lambda: clip_tower("gelu"),
    "siglip": siglip_tower,
    "dinov2": dinov2_tower,
    "dinov2 giant": lambda: dinov2_tower(gated=True, qkv_bias=False),
}


@pytest.mark.parametrize("size", [(40, 40), (43, 46), (56, 32)], ids=str)
@pytest.mark.parametrize("tower", TOWERS)
def test_hidden_states_and_pooled_output_are_the_same(tower, size, tmp_path):
    """Also for images of other sizes, where position embeddings are interpolated."""
    theirs, config, _ = TOWERS[tower]()
    params = params_of(vit.table(config, ""), loud(theirs), tmp_path)
    pixels = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    interpolate = {} if config.family == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        expected = theirs(channels_first(pixels), output_hidden_states=True, **interpolate)
    layers = range(config.num_layers + 1)
    states = jax.jit(vit.hidden_states, static_argnums=(1, 3))(params, config, pixels, tuple(layers))
    for ours, reference in zip(states, expected.hidden_states, strict=True):
        np.testing.assert_allclose(ours, reference.numpy(), atol=1e-4)
    pooled = vit.pooled(params, config, states[-1])
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), atol=1e-4)
    assert pooled.std() > 0.1


def test_a_siglip_tower_without_its_head(tmp_path):
    theirs, config, _ = siglip_tower()
    bare = ViTConfig(**{**config.__dict__, "pool_head": False})
    params = params_of(
        vit.table(bare, ""), loud(theirs), tmp_path, ignore=lambda name: name.startswith("head.")
    )
    with pytest.raises(ValueError, match="without its pooling head"):
        vit.pooled(params, bare, np.zeros((1, 25, 36), np.float32))


@pytest.fixture(scope="module")
def both_clips(tmp_path_factory):
    text = {"hidden_size": 30, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = transformers.CLIPConfig(
        text_config=text
        | {"vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 49, "bos_token_id": 48},
        vision_config=SHAPE | {"intermediate_size": 50},
        projection_dim=20,
    )
    theirs = loud(transformers.CLIPModel(config))
    tower = TextTowerConfig(
        hidden_size=30,
        intermediate_size=44,
        num_layers=2,
        num_heads=3,
        vocab_size=50,
        max_positions=16,
        end_id=49,
    )
    ours = ClipConfig(ViTConfig(**OURS, intermediate_size=50), tower, projection_size=20)
    return theirs, ours, params_of(clip.table(ours), theirs, tmp_path_factory.mktemp("clip"))


def test_clip_finds_images_and_texts_as_alike_as_pytorch_does(both_clips):
    theirs, config, params = both_clips
    rng = np.random.default_rng(1)
    pixels = rng.normal(size=(3, 40, 40, 3)).astype(np.float32)
    tokens = rng.integers(1, 48, (4, 12))
    for row, end in enumerate((5, 11, 1, 8)):
        tokens[row, end:] = 49  # padding is the end token too, as CLIP's tokenizer has it
    with torch.no_grad():
        expected = theirs(input_ids=to_torch(tokens), pixel_values=channels_first(pixels))
    images = clip.image_embeddings(params, config, pixels)
    texts = clip.text_embeddings(params, config, tokens)
    np.testing.assert_allclose(images, expected.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(texts, expected.text_embeds.numpy(), atol=1e-5)
    logits = clip.logits_per_image(params, images, texts)
    np.testing.assert_allclose(logits, expected.logits_per_image.numpy(), atol=1e-4)
    states = clip.text_states(params, config, tokens)
    np.testing.assert_allclose(states, expected.text_model_output.last_hidden_state.numpy(), atol=1e-4)


def test_a_text_that_is_too_long_is_an_error(both_clips):
    _, config, params = both_clips
    with pytest.raises(ValueError, match="17 tokens; the text tower reads 16"):
        clip.text_embeddings(params, config, np.ones((1, 17), np.int32))


def test_siglip_finds_images_and_texts_as_alike_as_pytorch_does(tmp_path):
    text = {"intermediate_size": 44, "num_hidden_layers": 2, "vocab_size": 50, "max_position_embeddings": 9}
    theirs = loud(
        transformers.SiglipModel(
            transformers.SiglipConfig(
                text_config=text | {"hidden_size": 36, "num_attention_heads": 3, "projection_size": 36},
                vision_config=SHAPE | {"intermediate_size": 50},
            )
        )
    )
    tower = TextTowerConfig(
        hidden_size=36,
        intermediate_size=44,
        num_layers=2,
        num_heads=3,
        layer_norm_eps=1e-6,
        activation="gelu_pytorch_tanh",
        vocab_size=50,
        max_positions=9,
    )
    config = ClipConfig(siglip_tower()[1], tower, projection_size=36)
    params = params_of(clip.table(config), theirs, tmp_path)
    rng = np.random.default_rng(1)
    pixels = rng.normal(size=(3, 40, 40, 3)).astype(np.float32)
    tokens = rng.integers(1, 50, (4, 9))
    with torch.no_grad():
        expected = theirs(input_ids=to_torch(tokens), pixel_values=channels_first(pixels))
    images = clip.image_embeddings(params, config, pixels)
    texts = clip.text_embeddings(params, config, tokens)
    np.testing.assert_allclose(images, expected.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(texts, expected.text_embeds.numpy(), atol=1e-5)
    logits = clip.logits_per_image(params, images, texts)
    np.testing.assert_allclose(logits, expected.logits_per_image.numpy(), atol=1e-4)


def test_towers_without_a_text_half_are_refused():
    with pytest.raises(ValueError, match="'dinov2' has no text half"):
        ClipConfig(dinov2_tower()[1])
