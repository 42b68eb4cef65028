"""Scores of correct and hallucinated words, at the level of words, sentences and captions."""

import numpy as np
import pytest
from scipy import stats

from tests.small_clip import small_clip
from vla_jax.data import Record
from vla_jax.data.schema import Object
from vla_jax.report import figures, write_words
from vla_jax.rewards.entities import Entities
from vla_jax.rewards.verifier import Verifier
from vla_jax.rewards.word_scores import pearson, separation, word_scores

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
CAPTIONS = ("A cup and a ball. There is a tree.", "Two cups.")


def record(*names):
    return Record("", (), "What?", {}, objects=tuple(Object(name) for name in names))


RECORDS = (record("cup", "tree"), record("cup"))


@pytest.fixture(scope="module")
def verifier():
    towers = small_clip()
    return Verifier(
        towers.config, towers.params, towers.tokenizer, Entities.from_names(("cup", "ball", "tree"))
    )


def test_a_word_has_its_own_score_and_that_of_its_sentence(verifier):
    found = word_scores(verifier, IMAGES, CAPTIONS, RECORDS)
    table = verifier.table(IMAGES, ["cup", "ball", "tree", "cups", "A cup and a ball.", *CAPTIONS])
    words = [table["cup"][0], table["ball"][0], table["tree"][0], table["cups"][1]]
    np.testing.assert_allclose(found.words, words)
    np.testing.assert_allclose(found.sentences[:2], table["A cup and a ball."][0])
    assert found.correct.tolist() == [True, False, True, True]
    np.testing.assert_allclose(found.mean_words, [np.mean(words[:3]), words[3]])
    np.testing.assert_allclose(found.captions, [table[CAPTIONS[0]][0], table[CAPTIONS[1]][1]])
    np.testing.assert_allclose(found.precision, [2 / 3, 1])
    assert found.word_seconds > 0 and found.sentence_seconds > 0


def test_words_of_one_kind_cannot_be_compared(verifier):
    with pytest.raises(ValueError, match="1 object words in 1 captions, and not both"):
        word_scores(verifier, IMAGES[:1], CAPTIONS[1:], RECORDS[1:])


def test_separation_and_correlation_are_scipys():
    rng = np.random.default_rng(0)
    scores, correct = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4
    ranked = stats.mannwhitneyu(scores[correct], scores[~correct]).statistic
    assert separation(scores, correct) == pytest.approx(ranked / correct.sum() / (~correct).sum())
    assert pearson(scores, correct.astype(float)) == pytest.approx(stats.pearsonr(scores, correct).statistic)
    assert np.isnan(pearson(scores, np.ones(60)))


def test_the_page_has_the_figures_and_the_charts_of_each_side(verifier, tmp_path):
    found = word_scores(verifier, IMAGES, CAPTIONS, RECORDS)
    write_words(tmp_path / "words.html", "Words", {"run": "<mine>"}, {"before": found, "after": found})
    page = (tmp_path / "words.html").read_text()
    assert page.count("<svg") == 8 and "&lt;mine&gt;" in page
    assert f"{100 * figures(found)['word']['separation']:.1f} %" in page
