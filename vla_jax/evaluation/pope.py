"""POPE: is an object in the image, yes or no (Li et al., 2023, arXiv:2305.10355)."""

from collections.abc import Sequence
from dataclasses import dataclass

_NEGATIONS = frozenset({"No", "not", "no"})


@dataclass(frozen=True)
class Pope:
    """POPE over a set of questions, in percent (0-100); "yes" is the positive class.

    Attributes:
      accuracy: right answers / questions.
      precision: questions rightly answered yes / answered yes.
      recall: questions rightly answered yes / whose answer is yes.
      f1: harmonic mean of the two.
      yes_ratio: answered yes / questions. On balanced questions 50 is unbiased; a constant answer shows here.
      n: questions.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float
    n: int


def says_yes(response: str) -> bool:
    """Reads a response as POPE does: a "No", "no" or "not" among the words of its first sentence is a no.

    All else is a yes, an empty response too. The published scorer splits at single blanks; we split at any
    white space, so that "No" before a line break is a no.
    """
    first_sentence = response.split(".", 1)[0]
    return _NEGATIONS.isdisjoint(first_sentence.replace(",", "").split())


def pope(responses: Sequence[str], labels: Sequence[bool]) -> Pope:
    """Scores responses to "Is there a ... in the image?" questions.

    A ratio whose denominator is zero (the precision of a model that never says yes) is 0.

    Args:
      responses: one free-text response a question.
      labels: for each question, whether the object is there.

    Raises:
      ValueError: no responses, or another number of labels.
    """
    if len(responses) != len(labels):
        raise ValueError(f"pope: {len(responses)} responses but {len(labels)} labels; give one each")
    if not responses:
        raise ValueError("pope: no responses; give at least one")

    answers = [says_yes(response) for response in responses]
    n, said_yes, are_yes = len(answers), sum(answers), sum(map(bool, labels))
    right = sum(answer == bool(label) for answer, label in zip(answers, labels, strict=True))
    right_yes = sum(answer and bool(label) for answer, label in zip(answers, labels, strict=True))
    return Pope(
        accuracy=100 * right / n,
        precision=_percent(right_yes, said_yes),
        recall=_percent(right_yes, are_yes),
        f1=_percent(2 * right_yes, said_yes + are_yes),
        yes_ratio=100 * said_yes / n,
        n=n,
    )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
