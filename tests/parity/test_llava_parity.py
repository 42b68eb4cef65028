"""Our LLaVA against transformers' with the same weights: the same logits, the same greedy answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from vla_jax.models import LlamaConfig, LlavaConfig, Parameter, ViTConfig, llava
from vla_jax.rollout import sample

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

IMAGE, WORDS = 5, 64
VARIANTS = {
    "llava-1.5": {},
    "last layer": {"feature_layer": -1},
    "first layer, class token": {"feature_layer": 1, "keep_class_token": True},
    "tied": {"tied": True},
    "one key head": {"kv_heads": 1, "keep_class_token": True},
    "no grouping": {"kv_heads": 4, "feature_layer": -1},
}


def theirs(*, feature_layer=-2, keep_class_token=False, tied=False, kv_heads=2):
    """A LLaVA of transformers whose every weight is random and loud enough to matter."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            image_size=24,
            patch_size=12,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_act="quick_gelu",
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=WORDS,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            rms_norm_eps=1e-5,
            tie_word_embeddings=tied,
        ),
        image_token_index=IMAGE,
        image_seq_length=4 + keep_class_token,
        projector_hidden_act="gelu",
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy="full" if keep_class_token else "default",
        tie_word_embeddings=tied,
    )
    model = transformers.LlavaForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.add_(0.3 * noise)
            else:
                weight.copy_(noise / weight[0].numel() ** 0.5)
    return model


def ours(*, feature_layer=-2, keep_class_token=False, tied=False, kv_heads=2):
    """The same shape as a config of ours."""
    return LlavaConfig(
        ViTConfig(
            image_size=24, patch_size=12, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2
        ),
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=32,
            intermediate_size=48,
            num_layers=2,
            num_heads=4,
            num_kv_heads=kv_heads,
            tie_embeddings=tied,
        ),
        image_token_id=IMAGE,
        feature_layer=feature_layer,
        keep_class_token=keep_class_token,
    )


def is_parameter(node):
    return isinstance(node, Parameter)


def names(parameter):
    """Names of the tensors, one a layer where it is stacked, that make a parameter."""
    layers = parameter.shape[0] if "{layer}" in parameter.hugging_face else 1
    return [parameter.hugging_face.format(layer=layer) for layer in range(layers)]


def read(table, state):
    """The parameters of `table` from a PyTorch state dict."""

    def load(parameter):
        tensors = [state[name].numpy() for name in names(parameter)]
        if parameter.layout:
            tensors = [rearrange(tensor, parameter.layout) for tensor in tensors]
        value = np.stack(tensors) if "{layer}" in parameter.hugging_face else tensors[0]
        assert value.shape == parameter.shape, parameter.hugging_face
        return jnp.asarray(value)

    return jax.tree.map(load, table, is_leaf=is_parameter)


def prompts(config):
    """Pixels, tokens and mask of two prompts, the first of them left-padded by three."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(2, 24, 24, 3)).astype(np.float32)
    tokens = rng.integers(IMAGE + 1, WORDS, (2, 18))
    tokens[0, 6 : 6 + config.num_image_tokens] = IMAGE
    tokens[1, 1 : 1 + config.num_image_tokens] = IMAGE
    mask = np.ones(tokens.shape, bool)
    mask[0, :3] = False
    return pixels, tokens, mask


def their_inputs(pixels, tokens, mask):
    return {
        "pixel_values": torch.from_numpy(rearrange(pixels, "b y x c -> b c y x").copy()),
        "input_ids": torch.from_numpy(tokens),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
    }


def our_logits(params, config, pixels, tokens, mask):
    features = llava.image_features(params, config, pixels)
    return llava.logits(params, llava.hidden_states(params, config, tokens, mask, features))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_logits_are_the_same(variant):
    model, config = theirs(**VARIANTS[variant]), ours(**VARIANTS[variant])
    params = read(llava.table(config), model.state_dict())
    pixels, tokens, mask = prompts(config)
    with torch.no_grad():
        expected = model(**their_inputs(pixels, tokens, mask)).logits.numpy()
    logits = jax.jit(our_logits, static_argnums=1)(params, config, pixels, tokens, mask)
    np.testing.assert_allclose(np.asarray(logits)[mask], expected[mask], atol=1e-4, rtol=0)
    assert expected.std() > 0.5


def test_the_logits_depend_on_the_image():
    """Else the comparison above would not see the vision tower."""
    config = ours()
    params = read(llava.table(config), theirs().state_dict())
    pixels, tokens, mask = prompts(config)
    run = jax.jit(our_logits, static_argnums=1)
    one, other = (run(params, config, image, tokens, mask) for image in (pixels, pixels[::-1]))
    assert np.abs(one - other)[:, -1].max() > 0.1


def test_greedy_answers_are_the_same():
    model, config = theirs(), ours()
    params = read(llava.table(config), model.state_dict())
    pixels, tokens, mask = prompts(config)
    with torch.no_grad():
        expected = model.generate(
            **their_inputs(pixels, tokens, mask), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
    features = llava.image_features(params, config, jnp.asarray(pixels))
    end_id = model.config.text_config.eos_token_id
    sampled = sample(params, None, config, features, tokens, mask, max_new_tokens=12, end_id=end_id)
    answers = expected[:, tokens.shape[1] :].numpy()
    np.testing.assert_array_equal(sampled.tokens[:, : answers.shape[1]], answers)


@pytest.mark.parametrize("tied", [False, True])
def test_every_tensor_of_theirs_has_its_place_in_our_table(tied):
    state = theirs(tied=tied).state_dict()
    parameters = jax.tree.leaves(llava.table(ours(tied=tied)), is_leaf=is_parameter)
    placed = {name for parameter in parameters for name in names(parameter)}
    assert placed == set(state) - ({"lm_head.weight"} if tied else set())
