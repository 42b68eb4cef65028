"""Means of correct and of hallucinated words, with labels and without."""

import numpy as np
import pytest

from vla_jax.objectives import Baselines
from vla_jax.rewards.baselines import labelled_baselines, unlabelled_baselines


def test_means_of_words_that_labels_tell_apart():
    scores, correct = [80.0, 60.0, 30.0, 10.0, 95.0], [True, True, False, False, None]
    # The last word is in no label: it counts for the extremes alone.
    assert labelled_baselines(scores, correct) == Baselines(70.0, 20.0, lowest=10.0, highest=95.0)


def test_both_kinds_are_needed():
    with pytest.raises(ValueError, match="no hallucinated word among 2"):
        labelled_baselines([1.0, 2.0], [True, None])


def test_groups_that_scores_fall_apart_in():
    assert unlabelled_baselines([9.0, 2.0, 8.0, 1.0, 3.0]) == Baselines(8.5, 2.0, lowest=1.0, highest=9.0)


def test_equal_scores_stay_together():
    assert unlabelled_baselines([1.0, 1.0, 1.0, 5.0]) == Baselines(5.0, 1.0, lowest=1.0, highest=5.0)
    with pytest.raises(ValueError, match="all alike"):
        unlabelled_baselines([4.0, 4.0])


def test_two_bell_curves_are_found():
    random = np.random.default_rng(0)
    found = unlabelled_baselines([*random.normal(20, 3, 400), *random.normal(60, 3, 400)])
    assert found.hallucinated == pytest.approx(20, abs=0.5)
    assert found.correct == pytest.approx(60, abs=0.5)
