"""Questions in words: each gets its own answer, whatever stands beside it in the batch."""

import numpy as np
import pytest

from tests.small_models import tiny_model
from vla_jax.data import DataError, Encoder
from vla_jax.models.compute import Compute
from vla_jax.rollout import Answerer

MODEL = tiny_model()
QUESTIONS = [
    "What is in the picture?",
    "Is there a cat?",
    "What do you see?",
    "Describe the picture.",
    "Why?",
]
IMAGES = [
    np.random.default_rng(i).integers(0, 256, size, np.uint8)
    for i, size in enumerate([(24, 24, 3), (30, 20, 3), (24, 24, 3), (40, 40, 3), (10, 50, 3)])
]


def answerer(batch_size, compute=Compute(), **limits):  # noqa: B008 (immutable)
    config = MODEL.config
    encoder = Encoder(
        MODEL.tokenizer, MODEL.processor, config.num_image_tokens, (), max_prompt_length=40, **limits
    )
    return Answerer(config, MODEL.params, None, encoder, MODEL.end_ids, batch_size, compute)


@pytest.fixture(scope="module")
def one_by_one():
    single = answerer(1)
    return [
        single.answer([image], [question], max_new_tokens=5)[0]
        for image, question in zip(IMAGES, QUESTIONS, strict=True)
    ]


@pytest.mark.smoke
def test_every_question_gets_an_answer_in_words(one_by_one):
    assert len(set(one_by_one)) > 1
    assert all(isinstance(text, str) and text == text.strip() for text in one_by_one)
    assert not any(special in text for text in one_by_one for special in ("<s>", "</s>", "<image>", "<pad>"))


def test_a_filled_up_last_batch_gives_the_same_answers_in_the_same_order(one_by_one):
    assert answerer(3).answer(IMAGES, QUESTIONS, max_new_tokens=5) == one_by_one


def test_layers_written_out_give_the_same_answers(one_by_one):
    written_out = answerer(3, Compute(unroll_decoding=True))
    assert written_out.answer(IMAGES, QUESTIONS, max_new_tokens=5) == one_by_one


def test_progress_counts_the_answers_of_each_batch():
    counts = []
    answerer(3).answer(IMAGES, QUESTIONS, max_new_tokens=5, progress=counts.append)
    assert counts == [3, 2]


def test_the_seed_fixes_sampled_answers_and_no_two_batches_share_a_draw():
    ask, twice = answerer(1), ([IMAGES[0]] * 2, [QUESTIONS[0]] * 2)
    same, again, other = (
        ask.answer(*twice, max_new_tokens=5, temperature=1.0, seed=seed) for seed in (0, 0, 1)
    )
    assert same == again != other
    assert same[0] != same[1]


def test_an_answer_ends_before_the_first_of_its_stops(one_by_one):
    whole = next(text for text in one_by_one if len(text.split()) > 2)
    i, words = one_by_one.index(whole), whole.split()
    made = answerer(1).answer(
        [IMAGES[i]], [QUESTIONS[i]], max_new_tokens=5, stop=("never said", words[2], words[1])
    )
    assert made == [whole[: min(whole.find(words[1]), whole.find(words[2]))].strip()]


def test_beams_find_answers_in_words_and_cannot_be_sampled():
    found = answerer(3).answer(IMAGES, QUESTIONS, max_new_tokens=5, num_beams=3)
    assert len(found) == 5 and all(isinstance(text, str) for text in found)
    with pytest.raises(ValueError, match="beams are searched, not sampled"):
        answerer(3).answer(IMAGES, QUESTIONS, max_new_tokens=5, num_beams=3, temperature=1.0)


def test_no_questions_give_no_answers():
    assert answerer(3).answer([], [], max_new_tokens=5) == []


def test_as_many_questions_as_images_are_needed():
    with pytest.raises(ValueError, match="5 images but 4 questions; give one each"):
        answerer(3).answer(IMAGES, QUESTIONS[:4], max_new_tokens=5)


def test_a_prompt_that_is_too_long_is_an_error():
    with pytest.raises(DataError, match="and the limit is 40; prompts are never cut"):
        answerer(1).answer(IMAGES[:1], ["What is this? " * 20], max_new_tokens=5)
