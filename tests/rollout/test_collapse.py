"""Signs of collapse in answers made by hand."""

import numpy as np
import pytest

from vla_jax.rollout.collapse import repetition, sameness


def padded(*answers):
    length = max(map(len, answers), default=0)
    tokens = np.array([answer + [9] * (length - len(answer)) for answer in answers], np.int32)
    mask = np.arange(length) < np.array([[len(answer)] for answer in answers])
    return tokens.reshape(len(answers), length), mask.reshape(len(answers), length)


@pytest.mark.smoke
def test_repetition_is_the_share_of_n_grams_that_stood_there_before():
    tokens, mask = padded([1, 2, 3, 4, 5], [7] * 6, [1, 2, 3, 1, 2, 3, 1], [1, 2], [])
    # 777 four times: one is distinct. 123 231 312 123 231: three of five are.
    np.testing.assert_allclose(repetition(tokens, mask), [0, 3 / 4, 2 / 5, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(repetition(tokens, mask, n=1)[:3], [0, 5 / 6, 4 / 7], rtol=1e-6)


def test_padding_repeats_nothing():
    tokens, mask = padded([1, 2, 3], [1] * 30)
    assert repetition(tokens, mask)[0] == 0 and repetition(tokens, mask)[1] > 0.9


def test_sameness_is_the_share_of_the_commonest_answer():
    assert sameness(*padded([1, 2], [1, 2], [1, 2, 9], [3])) == 0.5
    assert sameness(*padded([1], [2], [3], [4])) == 0.25
    assert sameness(np.zeros((0, 3), np.int32), np.zeros((0, 3), bool)) == 0
