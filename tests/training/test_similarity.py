"""Which of two things compares texts: a folder's encoder, or the stand-in, which says that it is one."""

import pytest

from vla_jax.rewards import LexicalSimilarity
from vla_jax.training.configuration import default_config
from vla_jax.training.similarity import similarity_of


def test_without_a_folder_words_are_compared_and_the_name_says_so():
    found = similarity_of(default_config())
    assert isinstance(found, LexicalSimilarity) and "stand-in" in found.name


def test_a_folder_that_holds_no_encoder_is_refused(tmp_path):
    config = default_config()
    config.rewards.similarity = str(tmp_path)
    with pytest.raises((ValueError, OSError), match=str(tmp_path)):
        similarity_of(config)
