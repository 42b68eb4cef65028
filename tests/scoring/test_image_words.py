"""What image tokens alone say of words, worked by hand."""

from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.scoring.image_words import image_word_log_likelihood

# One-hot image tokens pick rows of the output matrix: votes (before the logarithm) for three words.
VOTES = np.array([[1.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
PARAMS = {"language": {"head": jnp.log(VOTES)}}
FIRST, SECOND = [1.0, 0.0], [0.0, 1.0]
FEATURES = jnp.array([[[FIRST, SECOND], [FIRST, FIRST]]])  # one row, two views of two image tokens
RESPONSES = jnp.array([[[0, 2, 1], [1, 1, 0]]])
SCORED = jnp.array([[[True, True, False], [True, True, False]]])


@pytest.mark.smoke
def test_an_answers_words_are_likely_where_the_image_votes_for_them_and_others_unlikely():
    # Odds are votes summed over the image, over 2 tokens x 3 words: 4/6, 4/6, 2/6 in view 0 and 2/6, 4/6,
    # 2/6 in view 1. So the words' probabilities are 0.4, 0.4, 0.25 and 0.25, 0.4, 0.25.
    made = image_word_log_likelihood(PARAMS, FEATURES, RESPONSES, SCORED, ((0, 0), (1, 0), (0, 1)))
    expected = [
        0.4 * 0.6 * 0.25,  # view 0: words 0 and 2 are said, 1 is not counted
        0.25 * 0.6 * 0.25,  # view 1: the same
        0.6 * 0.4 * 0.75,  # view 0: word 1, said twice, is said
    ]
    np.testing.assert_allclose(jnp.exp(made), [expected], rtol=1e-5)


def test_likelihoods_of_all_sets_of_words_sum_to_one():
    total = 0.0
    for said in product([False, True], repeat=3):
        scored = jnp.array(said)[None, None]
        words = jnp.array([[[0, 1, 2]]])
        total += float(jnp.exp(image_word_log_likelihood(PARAMS, FEATURES, words, scored, ((0, 0),)))[0, 0])
    assert total == pytest.approx(1, rel=1e-5)


def test_the_order_of_image_tokens_and_of_words_does_not_matter():
    forwards = image_word_log_likelihood(PARAMS, FEATURES, RESPONSES, SCORED, ((0, 0), (1, 1)))
    turned = RESPONSES[..., jnp.array([1, 0, 2])]
    backwards = image_word_log_likelihood(PARAMS, FEATURES[:, :, ::-1], turned, SCORED, ((0, 0), (1, 1)))
    np.testing.assert_allclose(forwards, backwards, rtol=1e-6)


def test_rows_of_a_batch_read_their_own_image_and_answer():
    features, responses = (
        jnp.concatenate([FEATURES, FEATURES[:, ::-1]]),
        jnp.concatenate([RESPONSES, RESPONSES[:, ::-1]]),
    )
    scored = jnp.concatenate([SCORED, SCORED])
    together = image_word_log_likelihood(PARAMS, features, responses, scored, ((0, 0),))
    alone = [
        image_word_log_likelihood(PARAMS, features[i : i + 1], responses[i : i + 1], SCORED, ((0, 0),))[0]
        for i in range(2)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_a_tied_output_matrix_is_the_transposed_embedding():
    tied = {"language": {"embedding": jnp.log(VOTES).T}}
    np.testing.assert_allclose(
        image_word_log_likelihood(tied, FEATURES, RESPONSES, SCORED, ((1, 0),)),
        image_word_log_likelihood(PARAMS, FEATURES, RESPONSES, SCORED, ((1, 0),)),
        rtol=1e-6,
    )
