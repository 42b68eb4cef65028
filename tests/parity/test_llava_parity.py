"""Our LLaVA against transformers' with the same weights, over configurations drawn at random."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.parity.pytorch_models import channels_first, params_of  # noqa: E402
from tests.parity.random_llava import Prompts, build, draw_config  # noqa: E402
from vla_jax.interop.configs import from_hugging_face  # noqa: E402
from vla_jax.models import llama, llava  # noqa: E402

pytestmark = pytest.mark.parity

SEEDS = range(15)


@pytest.fixture(scope="module", params=SEEDS)
def pair(request, tmp_path_factory):
    """A model of theirs, ours with its weights, and prompts."""
    theirs = build(draw_config(request.param), request.param)
    config = from_hugging_face(theirs.config)
    params = params_of(llava.table(config), theirs, tmp_path_factory.mktemp("model"))
    return theirs, config, params, Prompts(theirs.config, request.param)


@partial(jax.jit, static_argnums=1)
def our_states(params, config, pixels, tokens, mask, layouts, adapter):
    """Image tokens, final hidden states, logits."""
    if layouts is not None:
        features = llava.tiled_features(params, config, pixels, layouts, adapter)
    else:
        features = llava.image_features(params, config, pixels, adapter)
    states = llava.hidden_states(params, config, tokens, mask, features, adapter)
    return features, states, llava.logits(params, states)


@partial(jax.jit, static_argnums=1)
def our_layers(params, config, features, tokens, mask):
    """Hidden states after each number of the decoder's layers, through the last norm."""
    embeddings, positions = llava.embed(params, config, tokens, features), llava.positions(mask)
    causal = np.tril(np.ones((tokens.shape[1],) * 2, bool)) & mask[:, None, :]
    language, states = params["language"], []
    for depth in range(config.language.num_layers):
        shallow = {**language, "layers": jax.tree.map(lambda p, end=depth: p[:end], language["layers"])}
        full = depth <= config.language.full_layers
        window = {"sliding_window": 0, "full_layers": 0} if full else {}
        decoder = replace(config.language, num_layers=depth, **window)
        states.append(llama.forward(shallow, decoder, embeddings, positions, causal)[0])
    return states


def run(params, config, prompts, adapter=None):
    return our_states(params, config, prompts.pixels, prompts.tokens, prompts.mask, prompts.layouts, adapter)


def test_logits_and_hidden_states_are_the_same(pair):
    theirs, config, params, prompts = pair
    with torch.no_grad():
        expected = theirs(**prompts.for_torch(), output_hidden_states=True)
    _, states, logits = run(params, config, prompts)
    mask = prompts.mask
    np.testing.assert_allclose(
        np.asarray(states)[mask], expected.hidden_states[-1].numpy()[mask], atol=1e-4, rtol=0
    )
    np.testing.assert_allclose(np.asarray(logits)[mask], expected.logits.numpy()[mask], atol=1e-4, rtol=0)
    assert expected.logits.std() > 0.3


def test_hidden_states_of_every_layer_are_the_same(pair):
    """Through the last norm, which is where ours come out."""
    theirs, config, params, prompts = pair
    with torch.no_grad():
        expected = theirs(**prompts.for_torch(), output_hidden_states=True).hidden_states
        norm = theirs.model.language_model.norm
        expected = [norm(state).numpy()[prompts.mask] for state in expected[:-1]]
    features, _, _ = run(params, config, prompts)
    layers = our_layers(params, config, features, prompts.tokens, prompts.mask)
    for states, reference in zip(layers, expected, strict=True):
        np.testing.assert_allclose(np.asarray(states)[prompts.mask], reference, atol=1e-4, rtol=0)


def test_image_tokens_are_the_same(pair):
    theirs, config, params, prompts = pair
    inputs = prompts.for_torch()
    sizes = {"image_sizes": inputs["image_sizes"]} if config.anyres else {}
    with torch.no_grad():
        expected = theirs.get_image_features(channels_first(prompts.pixels), **sizes).pooler_output
    features, _, _ = run(params, config, prompts)
    for ours, reference in zip(features, expected, strict=True):
        np.testing.assert_allclose(ours[: len(reference)], reference.numpy(), atol=1e-4, rtol=0)


def half_precision_errors(seed, folder):
    """Mean square difference of bfloat16 logits to float32 ones: ours, and PyTorch's own."""
    theirs = build(draw_config(seed), seed)
    config, prompts = from_hugging_face(theirs.config), Prompts(theirs.config, seed)
    params = params_of(llava.table(config), theirs, folder)
    inputs = prompts.for_torch()
    with torch.no_grad():
        exact = theirs(**inputs).logits.numpy()[prompts.mask]
        inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
        half = theirs.bfloat16()(**inputs).logits.float().numpy()[prompts.mask]
    halved = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    _, states, logits = run(halved, config, prompts)
    assert states.dtype == jnp.bfloat16
    return np.mean((np.asarray(logits)[prompts.mask] - exact) ** 2), np.mean((half - exact) ** 2)


def test_half_precision_errs_no_more_than_pytorchs(tmp_path):
    """Over several draws together: in a single one, which of two roundings is luckier is chance."""
    errors = [half_precision_errors(seed, tmp_path / str(seed)) for seed in SEEDS[::2]]
    ours, theirs = np.sqrt(np.mean(errors, axis=0))
    assert 0.001 < ours <= theirs


def test_the_logits_depend_on_the_image(pair):
    """Else the comparisons above would not see the vision tower."""
    _, config, params, prompts = pair
    _, _, logits = run(params, config, prompts)
    prompts = replace_pixels(prompts)
    _, _, others = run(params, config, prompts)
    assert np.abs(logits - others)[:, -1].max() > 0.01


def replace_pixels(prompts):
    other = object.__new__(Prompts)
    other.__dict__.update(prompts.__dict__, pixels=prompts.pixels[..., ::-1, :, :])
    return other


def test_the_draws_cover_every_switch():
    """Odd widths, grouped heads, tied and untied embeddings, several feature layers, both selections,
    windows shorter than the sequence, NeXT."""
    configs = [draw_config(seed) for seed in SEEDS]
    ours = [from_hugging_face(config) for config in configs]
    assert len({c.model_type for c in configs}) == 2
    assert {c.text_config.model_type for c in configs} == {"llama", "mistral", "qwen2"}
    assert {c.vision.family for c in ours} == {"clip", "siglip", "dinov2"}
    for switch in (
        lambda c: c.language.hidden_size % 4 != 0,
        lambda c: 1 < c.language.num_heads != c.language.num_kv_heads,
        lambda c: c.language.tie_embeddings,
        lambda c: isinstance(c.feature_layer, tuple),
        lambda c: c.keep_class_token,
        lambda c: c.language.sliding_window > 0,
        lambda c: c.language.full_layers > 0,
        lambda c: c.language.qkv_bias,
        lambda c: c.language.head_dim > 0,
        lambda c: c.projector_bias,
    ):
        assert {bool(switch(c)) for c in ours} == {True, False}
