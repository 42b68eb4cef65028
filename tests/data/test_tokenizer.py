"""Our own tokenizer: no text is lost, special tokens stay whole, the template is LLaVA-1.5's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small_models import tiny_tokenizer
from vla_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer

TOKENIZER = tiny_tokenizer()
SPECIAL = ("<pad>", "<s>", "</s>", IMAGE_TOKEN)


def ids(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


# Every character but the halves of surrogate pairs, which are no text.
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_any_text_round_trips(text):
    assert TOKENIZER.decode(ids(text)) == text


@pytest.mark.smoke
@pytest.mark.parametrize(
    "text", ["A red cat .", " two  spaces\n\tand tabs ", "naïve 狗 🐕‍🦺 Ω", "don't", "", "\x00\x7f"]
)
def test_texts_far_from_the_training_corpus_round_trip(text):
    assert TOKENIZER.decode(ids(text)) == text


def test_special_tokens_are_the_first_ids_and_never_split():
    assert TOKENIZER.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3]
    assert ids("a<image>b</s>")[1::2] == [3, 2]
    assert (TOKENIZER.pad_token, TOKENIZER.bos_token, TOKENIZER.eos_token) == SPECIAL[:3]
    assert TOKENIZER.image_token == IMAGE_TOKEN


def test_decoding_can_leave_special_tokens_out():
    assert TOKENIZER.decode(ids("<s>USER: <image>\nhi</s>"), skip_special_tokens=True) == "USER: \nhi"


def test_the_vocabulary_is_as_large_as_asked_and_holds_every_byte():
    tokenizer = train_tokenizer(["the cat sat on the mat " * 20], vocab_size=270)
    assert len(tokenizer) <= 270
    text = "".join(map(chr, range(1, 300)))
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_training_twice_gives_the_same_tokenizer():
    texts = ["a cat on a mat", "a dog in a bog"]
    assert train_tokenizer(texts).get_vocab() == train_tokenizer(texts).get_vocab()


def message(role, *parts):
    return {"role": role, "content": list(parts)}


def text(value):
    return {"type": "text", "text": value}


CONVERSATION = [
    message("user", {"type": "image"}, text("What is it?")),
    message("assistant", text("A cat.")),
    message("user", text("Sure?")),
    message("assistant", text("Yes.")),
]


@pytest.mark.parametrize(
    "turns, next_answer, rendered",
    [
        (1, False, "<s>USER: <image>\nWhat is it?"),
        (1, True, "<s>USER: <image>\nWhat is it? ASSISTANT:"),
        (2, False, "<s>USER: <image>\nWhat is it? ASSISTANT: A cat.</s>"),
        (3, True, "<s>USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"),
        (4, False, "<s>USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT: Yes.</s>"),
    ],
)
def test_the_chat_template(turns, next_answer, rendered):
    made = TOKENIZER.apply_chat_template(
        CONVERSATION[:turns], tokenize=False, add_generation_prompt=next_answer
    )
    assert made == rendered
