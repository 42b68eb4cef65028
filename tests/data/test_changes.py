"""Changed tokens: what lies in no common run of at least three."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_jax.data.changes import changed_tokens


def marks(text):
    return np.array([letter == "x" for letter in text])


@pytest.mark.parametrize(
    "first, second, changed",
    [
        ("abcdef", "abcdef", ("......", "......")),
        ("abcXdef", "abcYZdef", ("...x...", "...xx...")),
        ("abcXde", "abcYde", ("...xxx", "...xxx")),  # "de" is too short to match
        ("abc", "xyz", ("xxx", "xxx")),
        ("", "abc", ("", "xxx")),
    ],
)
def test_by_hand(first, second, changed):
    made = changed_tokens([ord(c) for c in first], [ord(c) for c in second])
    for ours, expected in zip(made, changed, strict=True):
        np.testing.assert_array_equal(ours, marks(expected))


@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_what_did_not_change_is_the_same_in_both(first, second):
    changed = changed_tokens(first, second)
    kept = [np.array(ids, int)[~marks] for ids, marks in zip((first, second), changed, strict=True)]
    np.testing.assert_array_equal(*kept)
