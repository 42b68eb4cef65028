"""A verifier's scores: cosines of two towers, a word at its tokens, each text embedded once."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_clip import small_clip
from tests.small_models import tiny_tokenizer
from vla_jax.data.world import CATEGORIES
from vla_jax.models import clip
from vla_jax.rewards import verifier as module
from vla_jax.rewards.entities import Entities
from vla_jax.rewards.verifier import Verifier
from vla_jax.views import normalise

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)


@pytest.fixture(scope="module")
def verifier():
    towers = small_clip()
    names = (category.name for category in CATEGORIES)
    return Verifier(towers.config, towers.params, towers.tokenizer, Entities.from_names(names))


def cosine(verifier, image, word):
    """The score as the towers themselves give it, one image and one word at a time."""
    vision = verifier.config.vision
    pixels = normalise(image[None], vision.pixel_mean, vision.pixel_std)
    tokens = verifier.tokenizer([word], return_tensors="np")["input_ids"]
    seen = clip.image_embeddings(verifier.params, verifier.config, pixels)[0]
    read = clip.text_embeddings(verifier.params, verifier.config, tokens)[0]
    return float(100 * seen @ read)


def responses(*texts):
    tokenizer = tiny_tokenizer()
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    tokens, mask = np.zeros((2, 1, max(map(len, rows)) + 1), np.int32), None
    mask = np.zeros(tokens.shape, bool)
    for i, row in enumerate(rows):
        tokens[i, 0, : len(row)], mask[i, 0, : len(row)] = row, True
    return tokens, mask


def test_a_words_score_is_its_cosine_at_its_last_token(verifier):
    tokens, mask = responses(" There are two umbrellas.", " I can see a cup and a tree.")
    found = verifier.verify(IMAGES, tiny_tokenizer(), tokens, mask)
    assert [[entity.word for entity, _ in row[0]] for row in found.words] == [["umbrellas"], ["cup", "tree"]]
    for i, row in enumerate(found.words):
        for (word, _, last), score in row[0]:
            assert score == pytest.approx(cosine(verifier, IMAGES[i], word), abs=1e-3)
            assert found.scores[i, 0, last] == pytest.approx(score) and found.entities[i, 0, last]
    assert found.entities.sum() == 3 and (found.scores[~found.entities] == 0).all()


def test_a_score_may_stand_at_every_token_of_its_word(verifier):
    tokens, mask = responses(" A bananas umbrella.", " No.")
    found = verifier.verify(IMAGES, tiny_tokenizer(), tokens, mask, every_token=True)
    held = sum(last - first + 1 for (_, first, last), _ in found.words[0][0])
    assert found.entities.sum() == held and not found.entities[1].any()


def test_a_word_is_embedded_once(verifier, monkeypatch):
    asked = []
    read = module._embed_texts
    monkeypatch.setattr(module, "_embed_texts", lambda *given: asked.append(1) or read(*given))
    fresh = replace(verifier, _known={})
    first = fresh.embed_texts(["cup", "tree", "cup"])
    np.testing.assert_array_equal(fresh.embed_texts(["tree"]), first[1:2])
    assert len(asked) == 1


def test_embeddings_may_keep_their_length(verifier):
    plain = replace(verifier, normalize=False, _known={})
    assert np.linalg.norm(verifier.embed_images(IMAGES), axis=1) == pytest.approx([1, 1], rel=1e-5)
    assert np.linalg.norm(plain.embed_images(IMAGES), axis=1).min() > 1.01


def test_images_of_another_size_are_resized(verifier):
    larger = np.kron(IMAGES, np.ones((1, 2, 2, 1), np.uint8))
    assert verifier.embed_images(larger).shape == verifier.embed_images(IMAGES).shape
    assert jnp.isfinite(verifier.embed_images(larger)).all()


def test_without_words_nothing_is_scored(verifier):
    tokens, mask = responses(" Yes.", " No.")
    assert not verifier.verify(IMAGES, tiny_tokenizer(), tokens, mask).entities.any()
