"""POPE's reading of a response, and its five figures."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shared_data import shared
from vla_jax.evaluation import Pope, pope, says_yes

ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Yes", True),
        ("No", False),
        ("no, there is none", False),
        ("There is not a dog in the image.", False),
        ("Yes, there is. No cat, though.", True),
        ("No\nThe image shows a street.", False),
        ("NO", True),
        ("Nothing of the kind", True),
        ("", True),
    ],
)
def test_reads_a_response_as_the_published_scorer_does(response, expected):
    assert says_yes(response) is expected


def test_worked_example():
    responses = ["Yes", "Yes", "No", "Yes", "No"]
    labels = [True, False, True, True, False]
    assert pope(responses, labels) == Pope(
        accuracy=pytest.approx(60),
        precision=pytest.approx(200 / 3),
        recall=pytest.approx(200 / 3),
        f1=pytest.approx(200 / 3),
        yes_ratio=pytest.approx(60),
        n=5,
    )


def test_never_saying_yes_scores_zero_not_an_error():
    assert pope(["No", "No"], [True, False]) == Pope(50, 0, 0, 0, 0, n=2)


@given(ANSWERS)
def test_right_answers_score_full_marks(pairs):
    labels = [label for _, label in pairs]
    scores = pope(["Yes" if label else "No" for label in labels], labels)
    assert scores.accuracy == 100
    assert scores.yes_ratio == 100 * sum(labels) / len(labels)
    assert scores.f1 == (100 if any(labels) else 0)


@given(ANSWERS)
def test_f1_is_the_harmonic_mean(pairs):
    scores = pope(["Yes" if answer else "No" for answer, _ in pairs], [label for _, label in pairs])
    total = scores.precision + scores.recall
    assert scores.f1 == pytest.approx(2 * scores.precision * scores.recall / total if total else 0)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="no responses"):
        pope([], [])
    with pytest.raises(ValueError, match="1 responses but 2 labels"):
        pope(["Yes"], [True, False])


@pytest.mark.parametrize("split", ["random", "adversarial"])
def test_constant_yes_on_the_real_questions(split):
    rows = [json.loads(line) for line in (shared("pope") / f"coco_pope_{split}.json").open()]
    labels = [row["label"] == "yes" for row in rows]
    scores = pope(["Yes"] * len(labels), labels)
    assert (scores.n, scores.accuracy, scores.recall, scores.yes_ratio) == (3000, 50, 100, 100)
    assert scores.f1 == pytest.approx(200 / 3)
