"""Sentences in tokens: by hand, on the world's tokenizer and on one that marks blanks as Llama's does."""

from functools import cache

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.small_models import tiny_tokenizer
from vla_jax.rollout.sentences import end_tokens, exchanged, split


@cache
def blank_marking():
    """BPE whose pieces begin with ▁, without pre-tokenisation, as Llama's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    corpus = [
        "Yes, it is. No, it is not. yes no\nYes\nNo, there is a cup.",
        'Is it? 1. The cup 2. A dog! "It."',
    ] * 9
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "</s>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


TOKENIZERS = pytest.mark.parametrize("tokenizer", [tiny_tokenizer, blank_marking])


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@TOKENIZERS
@pytest.mark.parametrize(
    "text, sentences",
    [
        ("There is a cup. There is a dog.", ["There is a cup.", "There is a dog."]),
        ("Yes", ["Yes"]),
        ("It is. Is it? A dog! no", ["It is.", "Is it?", "A dog!", "no"]),
        ("1. The cup\n2. A dog! It is.", ["1. The cup\n2. A dog!", "It is."]),
        ('"It is." it is', ['"It is."', "it is"]),
        ("It is 1.2 it. ", ["It is 1.2 it."]),
        (" ", [""]),
    ],
)
def test_a_response_is_split_at_its_full_stops(tokenizer, text, sentences):
    tokenizer = tokenizer()
    spans = split(tokens := ids(tokenizer, text), tokenizer)
    assert [tokenizer.decode(tokens[start:end]).strip() for start, end in spans] == sentences
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == len(tokens)


def test_nothing_has_no_sentences():
    assert split([], tiny_tokenizer()) == []


@TOKENIZERS
@pytest.mark.parametrize(
    "text, other",
    [
        ("Yes.", "No."),
        ("No, there is a cup.", "Yes, there is a cup."),
        ("yes", "no"),
        ("no it is", "yes it is"),
        ("\nYes it is.", "\nNo it is."),
    ],
)
def test_yes_and_no_are_exchanged_and_what_holds_the_answer_is_known(tokenizer, text, other):
    tokenizer = tokenizer()
    found = exchanged(ids(tokenizer, text), tokenizer)
    assert tokenizer.decode(found.tokens) == other
    said = tokenizer.decode(found.tokens[: found.answered])
    assert said.strip() == other.replace(",", "").replace(".", "").split()[0]


@TOKENIZERS
@pytest.mark.parametrize("text", ["There is no cup.", "Nothing is", "not it", "Yesit", "It is. Yes"])
def test_other_sentences_have_no_answer_to_exchange(tokenizer, text):
    assert exchanged(ids(tokenizer(), text), tokenizer()) is None


def test_tokens_that_end_a_sentence():
    tokenizer = tiny_tokenizer()
    assert sorted(tokenizer.decode([token]) for token in end_tokens(tokenizer)) == ["!", ".", "?"]
    assert tokenizer.eos_token_id not in end_tokens(tokenizer)
