"""Similarity of texts: by their words, and by an encoder's embeddings."""

import math

import jax
import numpy as np
import pytest

from tests.small_models import tiny_tokenizer
from vla_jax.models import parameters, sentence_encoder
from vla_jax.models.sentence_encoder import SentenceEncoderConfig
from vla_jax.rewards import EmbeddingSimilarity, LexicalSimilarity, embedding
from vla_jax.rewards.embedding import SentenceEmbedder

FIRST = ["A red cat.", "a red CAT", "dogs run", "", "the the cat", ""]
SECOND = ["A red cat!", "a blue cat", "cats sleep", "", "the cat cat", "cat"]


def test_words_are_counted():
    cosines = LexicalSimilarity()(FIRST, SECOND)
    np.testing.assert_allclose(cosines, [1, 2 / 3, 0, 1, 4 / 5, 0], rtol=1e-6)
    assert cosines.dtype == np.float32
    assert "stand-in" in LexicalSimilarity().name


def test_embeddings_of_any_length_are_compared_by_their_angle():
    rows = {"east": (2.0, 0.0), "north": (0.0, 0.1), "north-east": (5.0, 5.0), "nowhere": (0.0, 0.0)}
    similarity = EmbeddingSimilarity(lambda texts: np.array([rows[text] for text in texts]), "compass")
    cosines = similarity(["east", "east", "north", "nowhere"], ["north", "north-east", "north", "east"])
    np.testing.assert_allclose(cosines, [0, math.sqrt(0.5), 1, 0], atol=1e-6)
    assert similarity([], []).shape == (0,)


@pytest.mark.parametrize("similarity", [LexicalSimilarity(), EmbeddingSimilarity(list, "none")])
def test_texts_come_in_pairs(similarity):
    with pytest.raises(ValueError, match="2 texts are to be compared with 1"):
        similarity(["a", "b"], ["c"])


def encoder():
    return SentenceEncoderConfig(
        family="bert",
        vocab_size=len(tiny_tokenizer()),
        hidden_size=12,
        intermediate_size=16,
        num_layers=1,
        num_heads=2,
        max_positions=40,
    )


def test_an_encoder_embeds_every_text_as_it_would_alone():
    config, tokenizer = encoder(), tiny_tokenizer()
    params = parameters.initialise(sentence_encoder.table(config), jax.random.key(0))
    embed = SentenceEmbedder(config, params, tokenizer, max_length=16, batch_size=4)
    texts = ["a red cube", "a blue ball is left of a red cube", "a", "", "a red cube " * 20, "a red cube"]
    together = embed(texts)
    assert together.shape == (6, 12) and together.dtype == np.float32
    ids = [tokenizer(text)["input_ids"][:16] for text in texts]
    alone = jax.jit(sentence_encoder.sentence_embeddings, static_argnums=1)
    for place in (1, 4, 5):
        row = np.array([ids[place] + [3] * (16 - len(ids[place]))])
        expected = alone(params, config, row, np.arange(16)[None] < len(ids[place]))
        np.testing.assert_allclose(together[place], expected[0], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    assert embed([]).shape == (0, 12)


def test_lengths_are_few(monkeypatch):
    shapes = []

    def noted(params, config, tokens, valid):
        shapes.append(tokens.shape)
        return np.zeros((tokens.shape[0], 12))

    monkeypatch.setattr(embedding, "_embed", noted)
    embed = SentenceEmbedder(encoder(), {}, tiny_tokenizer(), max_length=40, batch_size=1)
    embed(["a " * count for count in range(1, 60)])
    assert set(shapes) == {(1, 16), (1, 32), (1, 40)}
