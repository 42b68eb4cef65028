"""LLaVA: image tokens where the prompt holds placeholders, and nothing that padding or batch mates change."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import tiny_config, tiny_model
from vla_jax.models import LlavaConfig, llama, llava

MODEL = tiny_model()
IMAGE = MODEL.config.image_token_id
PAD = 0
image_features = jax.jit(llava.image_features, static_argnums=1)
embed = jax.jit(llava.embed, static_argnums=1)
hidden_states = jax.jit(llava.hidden_states, static_argnums=1)
prefill = jax.jit(llava.prefill, static_argnums=1)
decode = jax.jit(llama.forward, static_argnums=1)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).normal(size=(2, 24, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def features(pixels):
    return image_features(MODEL.params, MODEL.config, pixels)


@pytest.fixture(scope="module")
def tokens():
    return jnp.array([[1, IMAGE, IMAGE, IMAGE, IMAGE, 70, 80, 90], [1, 50, IMAGE, IMAGE, IMAGE, IMAGE, 9, 8]])


@jax.jit
def log_probs(tokens, valid, features):
    """Log-probabilities of every next token."""
    states = llava.hidden_states(MODEL.params, MODEL.config, tokens, valid, features)
    return jax.nn.log_softmax(llava.logits(MODEL.params, states))


def unpadded(tokens, features):
    """`log_probs` of rows without padding."""
    return log_probs(tokens, jnp.ones_like(tokens, bool), features)


@pytest.mark.smoke
def test_the_ith_placeholder_becomes_the_ith_image_token(tokens, features):
    embeddings = embed(MODEL.params, MODEL.config, tokens, features)
    np.testing.assert_array_equal(embeddings[0, 1:5], features[0])
    np.testing.assert_array_equal(embeddings[1, 2:6], features[1])
    words = tokens != IMAGE
    np.testing.assert_array_equal(embeddings[words], MODEL.params["language"]["embedding"][tokens[words]])


def test_placeholders_need_not_stand_together(features):
    apart = jnp.array([[IMAGE, 7, IMAGE, 8, IMAGE, IMAGE]])
    embeddings = embed(MODEL.params, MODEL.config, apart, features[:1])
    np.testing.assert_array_equal(embeddings[0, jnp.array([0, 2, 4, 5])], features[0])


def test_a_row_with_fewer_placeholders_takes_the_first_image_tokens(features):
    embeddings = embed(MODEL.params, MODEL.config, jnp.array([[5, IMAGE, IMAGE, 6]]), features[:1])
    np.testing.assert_array_equal(embeddings[0, 1:3], features[0, :2])


def test_placeholders_beyond_the_last_image_token_keep_their_own_embedding(features):
    """So that a placeholder the model sampled is scored as it was decoded."""
    embeddings = embed(MODEL.params, MODEL.config, jnp.array([[*[IMAGE] * 4, 7, IMAGE]]), features[:1])
    np.testing.assert_array_equal(embeddings[0, :4], features[0])
    np.testing.assert_array_equal(embeddings[0, 5], MODEL.params["language"]["embedding"][IMAGE])


def test_without_features_a_placeholder_keeps_its_own_embedding(tokens):
    embeddings = embed(MODEL.params, MODEL.config, tokens, None)
    np.testing.assert_array_equal(embeddings, MODEL.params["language"]["embedding"][tokens])


def test_every_image_token_receives_a_gradient(tokens, features):
    gradient = jax.grad(lambda f: embed(MODEL.params, MODEL.config, tokens, f).sum())(features)
    np.testing.assert_array_equal(gradient, np.ones_like(features))


def test_the_answer_depends_on_the_image(tokens, features):
    differences = unpadded(tokens, features) - unpadded(tokens, features[::-1])
    assert np.abs(differences[:, -1]).max() > 1e-2


@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 3), (2, 1)])
def test_padding_on_either_side_changes_no_log_probability(tokens, features, left, right):
    padding = ((0, 0), (left, right))
    padded = jnp.pad(tokens, padding, constant_values=PAD)
    valid = jnp.pad(jnp.ones_like(tokens, bool), padding)
    result = log_probs(padded, valid, features)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(
        result[:, left : left + tokens.shape[1]], unpadded(tokens, features), atol=1e-4
    )


def test_what_stands_in_the_padding_does_not_matter(tokens, features):
    valid = jnp.pad(jnp.ones_like(tokens, bool), ((0, 0), (3, 2)))
    one, other = (jnp.pad(tokens, ((0, 0), (3, 2)), constant_values=value) for value in (PAD, 77))
    np.testing.assert_array_equal(
        log_probs(one, valid, features)[:, 3:-2], log_probs(other, valid, features)[:, 3:-2]
    )


def test_batch_mates_change_no_log_probability(tokens, features):
    together = unpadded(tokens, features)
    for i in range(2):
        np.testing.assert_allclose(
            together[i : i + 1], unpadded(tokens[i : i + 1], features[i : i + 1]), atol=1e-4
        )


def test_positions_count_valid_tokens_only():
    valid = jnp.array([[False, False, True, True, True], [True, True, False, True, False]])
    np.testing.assert_array_equal(llava.positions(valid), [[0, 0, 0, 1, 2], [0, 1, 1, 2, 2]])


def test_prefill_and_cached_decoding_equal_the_full_forward(tokens, features):
    """Under left padding, token by token."""
    params, config = MODEL.params, MODEL.config
    tokens = jnp.pad(tokens, ((0, 0), (2, 0)))
    valid = jnp.ones_like(tokens, bool).at[:, :2].set(False)
    full = hidden_states(params, config, tokens, valid, features)
    start, total = 8, tokens.shape[1]
    cache = llama.empty_cache(config.language, 2, total)
    states, cache = prefill(params, config, tokens[:, :start], valid[:, :start], features, cache)
    np.testing.assert_allclose(states[:, 2:], full[:, 2:start], atol=1e-5)
    for place in range(start, total):
        state, cache = decode(
            params["language"],
            config.language,
            embed(params, config, tokens[:, place : place + 1], None),
            llava.positions(valid)[:, place : place + 1],
            (valid & (jnp.arange(total) <= place))[:, None],
            None,
            cache,
            place,
        )
        np.testing.assert_allclose(state[:, 0], full[:, place], atol=1e-5)


@pytest.mark.parametrize("keep_class_token", [False, True])
def test_an_image_takes_as_many_tokens_as_the_config_says(pixels, keep_class_token):
    config = tiny_config(keep_class_token=keep_class_token)
    assert config.num_image_tokens == 4 + keep_class_token
    features = image_features(MODEL.params, config, pixels)
    assert features.shape == (2, config.num_image_tokens, config.language.hidden_size)


def test_dropping_the_class_token_leaves_the_patches(pixels, features):
    every = image_features(MODEL.params, tiny_config(keep_class_token=True), pixels)
    np.testing.assert_allclose(every[:, 1:], features, atol=1e-6)


def test_the_feature_layer_skips_the_vision_layers_behind_it(pixels, features):
    vision = MODEL.params["vision"]
    broken = {
        **MODEL.params,
        "vision": {**vision, "layers": jax.tree.map(lambda p: p.at[-1].set(jnp.nan), vision["layers"])},
    }
    assert MODEL.config.feature_layer == -2
    np.testing.assert_array_equal(image_features(broken, MODEL.config, pixels), features)
    last = tiny_config(feature_layer=-1)
    assert np.isnan(image_features(broken, last, pixels)).all()


def test_logits_are_float32_even_of_half_precision_states():
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), MODEL.params)
    assert llava.logits(half, jnp.ones((2, 32), jnp.bfloat16)).dtype == jnp.float32


def test_a_config_survives_json():
    config = tiny_config(language={"tie_embeddings": True}, keep_class_token=True, feature_layer=-1)
    assert LlavaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
