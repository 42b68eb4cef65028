"""The sentence encoder: positions, padding, relative distances, pooling."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_models import draw
from vla_jax.models import sentence_encoder
from vla_jax.models.sentence_encoder import SentenceEncoderConfig, relative_buckets

LENGTH = 7
MPNET = SentenceEncoderConfig(
    family="mpnet",
    vocab_size=30,
    hidden_size=18,
    intermediate_size=25,
    num_layers=2,
    num_heads=3,
    max_positions=24,
)

forward = jax.jit(sentence_encoder.forward, static_argnums=1)
embed = jax.jit(sentence_encoder.sentence_embeddings, static_argnums=1)


@pytest.fixture(scope="module", params=["mpnet", "bert"])
def encoder(request):
    """The parameters and config of either family."""
    config = replace(MPNET, family=request.param)
    return draw(sentence_encoder.table(config)), config


@pytest.fixture(scope="module")
def tokens():
    return jnp.asarray(np.random.default_rng(0).integers(0, 30, (3, LENGTH)))


def all_valid(tokens):
    return jnp.ones(tokens.shape, bool)


def first(tokens, *lengths):
    """True at the first few tokens of each row."""
    return jnp.arange(tokens.shape[1]) < jnp.array(lengths)[:, None]


def test_every_token_sees_every_other_on_either_side(encoder, tokens):
    changed = tokens.at[:, 3].set((tokens[:, 3] + 1) % 30)
    before, after = (forward(*encoder, row, all_valid(row)) for row in (tokens, changed))
    assert (jnp.abs(before - after).max(axis=-1) > 1e-3).all()


def test_the_order_of_the_tokens_counts(encoder, tokens):
    # A mean over tokens without positions would be the same for every order.
    before, after = (embed(*encoder, row, all_valid(row)) for row in (tokens, tokens[:, ::-1]))
    assert (jnp.abs(before - after).max(axis=-1) > 1e-3).all()


@pytest.mark.smoke
def test_what_stands_in_padding_changes_nothing(encoder, tokens):
    (params, config), valid = encoder, first(tokens, 4, LENGTH, 2)
    other = jnp.where(valid, tokens, (tokens + 5) % 30)
    before, after = (np.asarray(forward(params, config, row, valid)) for row in (tokens, other))
    np.testing.assert_array_equal(before[valid], after[valid])
    np.testing.assert_array_equal(embed(params, config, tokens, valid), embed(params, config, other, valid))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_embedding(encoder, side, tokens):
    params, config = encoder
    widths = ((0, 0), (5, 0) if side == "left" else (0, 5))
    padded, valid = jnp.pad(tokens, widths, constant_values=9), jnp.pad(all_valid(tokens), widths)
    np.testing.assert_allclose(
        embed(params, config, padded, valid), embed(params, config, tokens, all_valid(tokens)), atol=1e-5
    )


def test_an_embedding_does_not_depend_on_its_batch_mates(encoder, tokens):
    (params, config), valid = encoder, first(tokens, 4, LENGTH, 2)
    together = embed(params, config, tokens, valid)
    alone = [embed(params, config, tokens[row : row + 1], valid[row : row + 1]) for row in range(3)]
    np.testing.assert_allclose(jnp.concatenate(alone), together, atol=1e-5)


def test_an_embedding_is_the_mean_over_valid_states_scaled_to_length_one(encoder, tokens):
    (params, config), valid = encoder, first(tokens, 4, LENGTH, 2)
    states = forward(params, config, tokens, valid)
    means = np.stack([states[row, :length].mean(axis=0) for row, length in enumerate((4, LENGTH, 2))])
    plain = embed(params, replace(config, normalise=False), tokens, valid)
    np.testing.assert_allclose(plain, means, atol=1e-5)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    assert (np.abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(embed(params, config, tokens, valid), means / lengths, atol=1e-5)


def test_a_row_of_padding_gives_zeros_and_finite_gradients(encoder, tokens):
    (params, config), valid = encoder, first(tokens, 4, 0, 2)

    def total(params):
        embeddings = sentence_encoder.sentence_embeddings(params, config, tokens, valid)
        return embeddings.sum(), embeddings

    gradients, embeddings = jax.jit(jax.grad(total, has_aux=True))(params)
    assert not embeddings[1].any() and embeddings[0].any()
    assert all(jnp.isfinite(gradient).all() for gradient in jax.tree.leaves(gradients))


def test_positions_count_valid_tokens_after_mpnets_own_two(encoder, tokens):
    """Rows of the position table that no valid token takes get no gradient."""
    (params, config), valid = encoder, first(tokens, 4, 1, 2)[:, ::-1]

    def total(positions):
        embeddings = sentence_encoder.sentence_embeddings(
            {**params, "position": positions}, config, tokens, valid
        )
        return embeddings[:, 0].sum()

    gradient = jax.jit(jax.grad(total))(params["position"])
    start = {"mpnet": 2, "bert": 0}[config.family]
    np.testing.assert_array_equal(np.flatnonzero(np.abs(gradient).max(axis=1)), np.arange(start, start + 4))


def test_near_distances_have_a_bucket_each_and_far_ones_share():
    buckets = relative_buckets(300, 32)
    # From token 0 on, all keys come later: 16 is the bucket of distance 0 counted from that side, never used.
    assert buckets[0, :8].tolist() == [0, 17, 18, 19, 20, 21, 22, 23]
    assert buckets[7, :8].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    # A new bucket starts where the distance has grown by another factor sqrt(2).
    starts = [8, 12, 16, 23, 32, 46, 64, 91]
    assert np.flatnonzero(np.diff(buckets[0]))[8 - 1 :].tolist() == [start - 1 for start in starts]
    assert buckets[0, -1] == 31 and buckets[-1, 0] == 15
    np.testing.assert_array_equal(buckets[10:, 10:], buckets[:-10, :-10])


def test_the_bias_of_a_distance_steers_attention_to_it(tokens):
    """A loud bias for "the key right behind me": each token then attends to that one alone."""
    config = replace(MPNET, num_layers=1)
    params = draw(sentence_encoder.table(config))
    bucket = relative_buckets(2, 32)[0, 1]
    loud = {**params, "relative_bias": params["relative_bias"].at[bucket].set(1e4)}
    changed = tokens.at[:, 4].set((tokens[:, 4] + 1) % 30)
    before, after = (forward(loud, config, row, all_valid(row)) for row in (tokens, changed))
    # The last token has none behind it and looks at all.
    moved = (jnp.abs(before - after).max(axis=-1) > 1e-3).all(axis=0)
    assert moved.tolist() == [False, False, False, True, True, False, True]


def test_half_precision_stays_half_precision_and_close(encoder, tokens):
    (params, config), valid = encoder, first(tokens, 4, LENGTH, 2)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    embeddings = embed(half, config, tokens, valid)
    assert embeddings.dtype == forward(half, config, tokens, valid).dtype == jnp.bfloat16
    np.testing.assert_allclose(
        embeddings.astype(jnp.float32), embed(params, config, tokens, valid), atol=0.05
    )


def test_rows_longer_than_the_position_table_are_an_error(encoder):
    params, config = encoder
    longest = {"mpnet": 22, "bert": 24}[config.family]

    def shape(length):
        tokens = jnp.zeros((1, length), jnp.int32)
        return jax.eval_shape(lambda: sentence_encoder.forward(params, config, tokens, all_valid(tokens)))

    assert shape(longest).shape == (1, longest, 18)
    with pytest.raises(ValueError, match=f"tokens are {longest + 1} long, .* positions for {longest}"):
        shape(longest + 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "roberta"}, "sentence_encoder.family is 'roberta'"),
        ({"num_heads": 4}, "sentence_encoder.hidden_size 18 is no multiple of"),
        ({"relative_buckets": 2}, "sentence_encoder.relative_buckets is 2"),
        ({"relative_buckets": 31}, "sentence_encoder.relative_buckets is 31"),
    ],
)
def test_fields_that_make_no_encoder_are_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(MPNET, **fields)
