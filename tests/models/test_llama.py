"""The decoder: causal, rotary, cached, tied or not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import draw
from vla_jax.models import LlamaConfig, llama

CONFIG = LlamaConfig(
    vocab_size=40, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2
)
LENGTH = 6
forward = jax.jit(llama.forward, static_argnums=1)


def table(config):
    """The decoder's own table."""
    return llama.table(config, "model.", "lm_head")


def causal(length=LENGTH):
    """The causal mask of one row."""
    return jnp.tril(jnp.ones((length, length), bool))[None]


def run(params, config, embeddings, shift=0):
    """Hidden states under causal attention, positions counted from `shift`."""
    positions = jnp.broadcast_to(jnp.arange(LENGTH) + shift, embeddings.shape[:2])
    return forward(params, config, embeddings, positions, causal())[0]


@pytest.fixture(scope="module")
def params():
    return draw(table(CONFIG))


@pytest.fixture(scope="module")
def embeddings():
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, LENGTH, 32)), jnp.float32)


@pytest.mark.smoke
def test_no_position_sees_what_comes_after_it(params, embeddings):
    changed = embeddings.at[:, 4:].add(1.0)
    before, after = run(params, CONFIG, embeddings), run(params, CONFIG, changed)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (jnp.abs(before - after)[:, 4:].max(axis=-1) > 1e-3).all()


def test_rotary_positions_are_relative(params, embeddings):
    np.testing.assert_allclose(
        run(params, CONFIG, embeddings, shift=9), run(params, CONFIG, embeddings), atol=1e-4
    )


def test_the_order_of_the_tokens_counts(params, embeddings):
    swapped = embeddings[:, jnp.array([1, 0, 2, 3, 4, 5])]
    assert jnp.abs(run(params, CONFIG, swapped) - run(params, CONFIG, embeddings))[:, 5].max() > 1e-3


def test_grouped_key_heads_equal_the_same_heads_written_out(params, embeddings):
    full = replace(CONFIG, num_kv_heads=4)

    def repeat(weight):
        return jnp.repeat(weight.reshape(2, 32, 2, 8), 2, axis=2).reshape(2, 32, 32)

    layers = params["layers"]
    written_out = {
        **params,
        "layers": {**layers, "k_proj": repeat(layers["k_proj"]), "v_proj": repeat(layers["v_proj"])},
    }
    np.testing.assert_allclose(run(written_out, full, embeddings), run(params, CONFIG, embeddings), atol=1e-5)


def test_unrolled_layers_equal_scanned_layers(params, embeddings):
    np.testing.assert_allclose(
        run(params, replace(CONFIG, unroll=True), embeddings), run(params, CONFIG, embeddings), atol=1e-5
    )


@pytest.mark.parametrize("chunks", [(3, 3), (4, 1, 1)])
def test_reading_in_chunks_through_the_cache_equals_reading_at_once(params, embeddings, chunks):
    cache, start, states = llama.empty_cache(CONFIG, 2, LENGTH + 2), 0, []
    for size in chunks:
        positions = jnp.broadcast_to(jnp.arange(start, start + size), (2, size))
        mask = jnp.arange(LENGTH + 2) <= positions[..., None]
        chunk = embeddings[:, start : start + size]
        state, cache = forward(params, CONFIG, chunk, positions, mask, None, cache, start)
        states.append(state)
        start += size
    np.testing.assert_allclose(jnp.concatenate(states, 1), run(params, CONFIG, embeddings), atol=1e-5)


def test_without_a_cache_none_comes_back(params, embeddings):
    positions = jnp.broadcast_to(jnp.arange(LENGTH), (2, LENGTH))
    assert forward(params, CONFIG, embeddings, positions, causal())[1] is None


def test_a_tied_decoder_reads_its_embedding_as_the_output_matrix(params):
    tied = {"embedding": params["embedding"]}
    assert "head" not in table(replace(CONFIG, tie_embeddings=True))
    np.testing.assert_array_equal(llama.output_matrix(tied), tied["embedding"].T)
    np.testing.assert_array_equal(llama.output_matrix(params), params["head"])


def test_a_window_over_a_cache_needs_the_positions_of_the_keys(params, embeddings):
    windowed = replace(CONFIG, sliding_window=2)
    cache = llama.empty_cache(CONFIG, 2, LENGTH)
    positions = jnp.broadcast_to(jnp.arange(LENGTH), (2, LENGTH))
    with pytest.raises(ValueError, match="a sliding window needs key_positions beside its cache"):
        llama.forward(params, windowed, embeddings, positions, causal(), cache=cache)


def test_half_precision_stays_half_precision_and_finite(params, embeddings):
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    states = run(half, CONFIG, embeddings.astype(jnp.bfloat16))
    assert states.dtype == jnp.bfloat16
    np.testing.assert_allclose(states.astype(jnp.float32), run(params, CONFIG, embeddings), atol=0.15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 30, "num_heads": 4, "num_kv_heads": 4}, "language.hidden_size 30 must split"),
        ({"hidden_size": 12, "num_heads": 4, "num_kv_heads": 4}, "language.hidden_size 12 must split"),
        ({"num_heads": 4, "num_kv_heads": 3}, "language.num_kv_heads 3 must divide"),
        ({"sliding_window": -1}, "language.sliding_window -1 must be positive, or 0"),
        ({"full_layers": 2}, "language.full_layers 2 would do nothing: it needs a sliding_window"),
        ({"full_layers": 32, "sliding_window": 9}, "language.full_layers 32 would do nothing"),
    ],
)
def test_a_config_that_cannot_be_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig(**fields)
