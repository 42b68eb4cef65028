"""Our sentence encoder against transformers' BERT and MPNet with the same weights."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from tests.parity.pytorch_models import loud, params_of  # noqa: E402
from vla_jax.models import sentence_encoder  # noqa: E402
from vla_jax.models.sentence_encoder import SentenceEncoderConfig, relative_buckets  # noqa: E402

pytestmark = pytest.mark.parity

WORDS, PADDING, LONGEST = 50, 1, 40
# Rows of 40 tokens: distances well past the 8 that have a bucket each.
LENGTHS = (LONGEST, 23, 1, 9)

forward = jax.jit(sentence_encoder.forward, static_argnums=1)
embed = jax.jit(sentence_encoder.sentence_embeddings, static_argnums=1)


def theirs(family):
    """An encoder of transformers."""
    build = {
        "bert": (transformers.BertConfig, transformers.BertModel),
        "mpnet": (transformers.MPNetConfig, transformers.MPNetModel),
    }
    make_config, make_model = build[family]
    config = make_config(
        vocab_size=WORDS,
        hidden_size=36,
        intermediate_size=50,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=LONGEST + 7,
        layer_norm_eps=1e-5,
        pad_token_id=PADDING,
    )
    return loud(make_model(config))


def ours(family):
    """The same shape as a config of ours."""
    return SentenceEncoderConfig(
        family=family,
        vocab_size=WORDS,
        hidden_size=36,
        intermediate_size=50,
        num_layers=2,
        num_heads=3,
        max_positions=LONGEST + 7,
        layer_norm_eps=1e-5,
    )


def is_pooler(name):
    return name.startswith("pooler.")


def sentences(padding=0):
    """Right-padded rows of `LENGTHS` tokens and where they are valid; `padding` more columns of it."""
    rng = np.random.default_rng(0)
    valid = np.arange(LONGEST + padding) < np.array(LENGTHS)[:, None]
    tokens = np.full(valid.shape, PADDING)
    tokens[:, :LONGEST] = np.where(valid[:, :LONGEST], rng.integers(2, WORDS, (4, LONGEST)), PADDING)
    return tokens, valid


@pytest.fixture(scope="module", params=["bert", "mpnet"])
def pair(request, tmp_path_factory):
    """Their hidden states, our parameters and our config."""
    model, config = theirs(request.param), ours(request.param)
    tokens, valid = sentences()
    with torch.no_grad():
        states = model(torch.from_numpy(tokens), attention_mask=torch.from_numpy(valid.astype(np.int64)))
    # Every tensor but the pooler's must have its place in the table, or this raises.
    folder = tmp_path_factory.mktemp("encoder")
    params = params_of(sentence_encoder.table(config), model, folder, ignore=is_pooler)
    return states.last_hidden_state.numpy(), params, config


def test_the_hidden_states_are_the_same(pair):
    expected, params, config = pair
    tokens, valid = sentences()
    states = np.asarray(forward(params, config, tokens, valid))
    np.testing.assert_allclose(states[valid], expected[valid], atol=1e-4, rtol=0)
    assert expected[valid].std() > 0.5


def test_the_embeddings_are_the_normalised_means_of_their_states(pair):
    expected, params, config = pair
    tokens, valid = sentences()
    means = np.stack([row[:length].mean(axis=0) for row, length in zip(expected, LENGTHS, strict=True)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(params, config, tokens, valid), means, atol=1e-5)
    # Sentences differ, so that a mix-up of rows would show.
    assert (means @ means.T)[~np.eye(4, dtype=bool)].max() < 0.99


def test_batch_mates_and_padding_change_no_embedding(pair):
    _, params, config = pair
    tokens, valid = sentences()
    together = embed(params, config, tokens, valid)
    padded = embed(params, config, *sentences(padding=5))
    np.testing.assert_allclose(padded, together, atol=1e-5)
    alone = [embed(params, config, tokens[row : row + 1], valid[row : row + 1]) for row in range(4)]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)
    trimmed = embed(params, config, tokens[3:, : LENGTHS[3]], valid[3:, : LENGTHS[3]])
    np.testing.assert_allclose(trimmed, together[3:], atol=1e-5)


def test_every_parameter_moves_the_embeddings(pair):
    """Else the comparisons above would not see it. A shift of all keys alike moves no softmax."""
    _, params, config = pair
    before = embed(params, config, *sentences())
    leaves, structure = jax.tree.flatten(params)
    rng, moves = np.random.default_rng(0), []
    for place, leaf in enumerate(leaves):
        changed = leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32)
        after = embed(
            structure.unflatten([*leaves[:place], changed, *leaves[place + 1 :]]), config, *sentences()
        )
        moves.append(float(np.abs(after - before).max()))
    moved = structure.unflatten(moves)
    assert moved["layers"].pop("k_bias") < 1e-5
    assert min(jax.tree.leaves(moved)) > 0.01, moved


@pytest.mark.parametrize("buckets", [8, 32, 64])
def test_relative_distances_fall_into_the_same_buckets(buckets):
    encoder = transformers.models.mpnet.modeling_mpnet.MPNetEncoder
    length = 300
    distance = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    expected = encoder.relative_position_bucket(distance, num_buckets=buckets)
    np.testing.assert_array_equal(relative_buckets(length, buckets), expected.numpy())
