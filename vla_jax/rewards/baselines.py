"""Where a verifier's scores of correct and of hallucinated words lie (FiSAO, Eq. 11)."""

from collections.abc import Sequence

import numpy as np

from vla_jax.data import Record
from vla_jax.data.vocabulary import Vocabulary
from vla_jax.objectives import Baselines


def correctness(words: Sequence[tuple[str, Record]]) -> list[bool | None]:
    """Whether the object that a word names is among those of its record, as CHAIR reads both.

    Args:
      words: object words in responses, each with the record that was answered.

    Returns:
      None where the labels do not say: the word names nothing that CHAIR or any of these records knows, or
      its record names no object.
    """
    named = {found.name for _, record in words for found in record.objects if found.name}
    vocabulary = Vocabulary.coco(also=named)
    said: list[bool | None] = []
    for word, record in words:
        present = {vocabulary.canonical(found.name) for found in record.objects if found.name}
        meant = {mention.name for mention in vocabulary.mentions(word)}
        said.append(bool(meant & present) if meant and present else None)
    return said


def labelled_baselines(scores: Sequence[float], correct: Sequence[bool | None]) -> Baselines:
    """Mean scores of words known to be correct and known to be hallucinated, and the extremes of all.

    The paper tells the two apart by the ground truth of its training images ("determined by the ground truth
    labels"): labels are read here, once, to place two numbers, and by no reward.

    Args:
      scores: of object words in a model's responses to training records.
      correct: whether each word's object is there; None where the labels do not say.

    Raises:
      ValueError: where there are no words of either kind.
    """
    values = np.asarray(scores, float)
    kinds = {
        name: values[[is_correct is wanted for is_correct in correct]]
        for name, wanted in (("correct", True), ("hallucinated", False))
    }
    for name, own in kinds.items():
        if not len(own):
            raise ValueError(
                f"baselines: no {name} word among {len(values)}; take more responses, or tell the words "
                "apart by their scores alone (baselines='scores')"
            )
    means = {name: float(own.mean()) for name, own in kinds.items()}
    return Baselines(**means, lowest=float(values.min()), highest=float(values.max()))


def unlabelled_baselines(scores: Sequence[float]) -> Baselines:
    """The same without any label: the two groups are those that scores fall apart in.

    Scores are cut in two where their groups are tightest (Otsu 1979): the lower mean stands for hallucinated
    words, the upper one for correct ones.

    Raises:
      ValueError: where fewer than two scores differ.
    """
    values = np.sort(np.asarray(scores, float))
    if not len(values) or values[0] == values[-1]:
        raise ValueError("baselines: scores that are all alike cannot be told apart; take more responses")
    counts = np.arange(1, len(values))
    sums = np.cumsum(values)
    below, above = sums[:-1] / counts, (sums[-1] - sums[:-1]) / (len(values) - counts)
    between = counts * (len(values) - counts) * (above - below) ** 2
    # Equal scores are not torn apart.
    cut = int(np.argmax(np.where(values[1:] > values[:-1], between, -1.0)))
    return Baselines(float(above[cut]), float(below[cut]), float(values[0]), float(values[-1]))
