"""What a verifier makes of captions: of single words, of their sentences, of the whole (FiSAO, 3.1)."""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vla_jax.data import Record
from vla_jax.rewards.baselines import correctness
from vla_jax.rewards.verifier import Verifier

_SENTENCE = re.compile(r"[^.!?]+[.!?]*")


class WordScores(NamedTuple):
    """Scores of the n object words whose truth is known, and of the c captions that have such words.

    Attributes:
      words: of each word.
      sentences: of the sentence that each word stands in.
      correct: whether the word's object is there.
      mean_words, captions: of each caption, the mean of its words' scores, and the score of its text.
      precision: share of each caption's words that are correct.
      word_seconds, sentence_seconds: what scoring words, or sentences, takes for a caption with its image.
    """

    words: Float[np.ndarray, " n"]
    sentences: Float[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]
    mean_words: Float[np.ndarray, " c"]
    captions: Float[np.ndarray, " c"]
    precision: Float[np.ndarray, " c"]
    word_seconds: float
    sentence_seconds: float


def word_scores(
    verifier: Verifier,
    images: UInt8[np.ndarray, "b y x 3"],
    captions: Sequence[str],
    records: Sequence[Record],
) -> WordScores:
    """Scores captions at three levels; labels tell correct words from hallucinated ones, for people to see.

    Args:
      verifier: scores texts under images.
      images: as it sees them, one a caption.
      captions: what a model said.
      records: what is in the images.

    Raises:
      ValueError: where no word of them is known to be correct, or none to be hallucinated.
    """
    found = [
        (row, caption[mention.start : mention.end], sentence.group().strip())
        for row, caption in enumerate(captions)
        for sentence in _SENTENCE.finditer(caption)
        for mention in verifier.entities.words.mentions(caption)
        if sentence.start() <= mention.start < sentence.end()
    ]
    truth = correctness([(word, records[row]) for row, word, _ in found])
    known = [
        (*place, is_correct) for place, is_correct in zip(found, truth, strict=True) if is_correct is not None
    ]
    if len({is_correct for *_, is_correct in known}) < 2:
        raise ValueError(
            f"{len(known)} object words in {len(captions)} captions, and not both correct and hallucinated "
            "ones among them; take more captions"
        )
    rows, words, sentences, correct = (list(column) for column in zip(*known, strict=True))
    verifier.table(images, [""])  # Compiled before anything is timed.
    (of_words, word_seconds), (of_sentences, sentence_seconds) = (
        _timed(partial(verifier.table, images, texts)) for texts in (words, sentences)
    )
    of_captions = verifier.table(images, captions)
    scores = np.array([of_words[word][row] for row, word in zip(rows, words, strict=True)])
    distinct = sorted(set(rows))
    per_caption = [np.array(rows) == row for row in distinct]
    return WordScores(
        scores,
        np.array([of_sentences[sentence][row] for row, sentence in zip(rows, sentences, strict=True)]),
        np.array(correct),
        np.array([scores[own].mean() for own in per_caption]),
        np.array([of_captions[captions[row]][row] for row in distinct]),
        np.array([np.array(correct)[own].mean() for own in per_caption]),
        word_seconds / len(captions),
        sentence_seconds / len(captions),
    )


def separation(scores: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"]) -> float:
    """How often a correct word scores above a hallucinated one, ties half (area under the ROC curve)."""
    hallucinated = np.sort(scores[~correct])
    below, upto = (np.searchsorted(hallucinated, scores[correct], side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(hallucinated))


def pearson(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Pearson's r; NaN where either does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else float("nan")


def _timed(compute: Callable[[], dict[str, list[float]]]) -> tuple[dict[str, list[float]], float]:
    start = time.perf_counter()
    return compute(), time.perf_counter() - start
