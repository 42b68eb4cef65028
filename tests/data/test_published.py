"""What is refused of a record whatever its layout, and what is said of errors nobody foresaw."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from tests.published_files import HEIGHT, PIXELS, WIDTH, as_jsonl, image_folder, read
from tests.small_models import tiny_tokenizer
from vla_jax.data import CHOSEN, REJECTED, DataError, Encoder, Object, Record
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.images import Pixels
from vla_jax.data.loading import Reader
from vla_jax.data.published import check_values
from vla_jax.data.rows import RowError

ROW = {"img_path": "a.png", "prompt": "What?", "chosen": "A cat.", "rejected": "A dog."}
RECORD = Record(
    "one",
    (Pixels(PIXELS),),
    "What?",
    {CHOSEN: "A cat.", REJECTED: "A dog."},
    objects=(Object("cat", (1.0, 2.0, 3.0, 4.0), np.ones((HEIGHT, WIDTH), bool)),),
    ratings={CHOSEN: 4.0, REJECTED: 1.0},
    spans={REJECTED: ((2, 5), (5, 6))},
)


@pytest.mark.parametrize(
    "changed, problem",
    [
        ({"spans": {REJECTED: ((2, 7),)}}, "a span 2 to 7 that leaves its 'rejected'"),
        ({"spans": {REJECTED: ((-1, 3),)}}, "a span -1 to 3"),
        ({"spans": {REJECTED: ((3, 3),)}}, "a span 3 to 3"),
        ({"spans": {"best": ((0, 1),)}}, "has spans of 'best', which is no response"),
        ({"ratings": {"best": 1.0}}, "has ratings of 'best', which is no response"),
        ({"ratings": {CHOSEN: float("inf")}}, "rates 'chosen' as inf"),
        ({"objects": (Object("cat", mask=np.ones((HEIGHT, HEIGHT), bool)),)}, r"a mask of \(20, 20\) in an"),
        ({"objects": (Object("cat", (0.0, 0.0, float("nan"), 1.0)),)}, "a box that is not four numbers"),
        ({"objects": (Object("caf\udce9"),)}, "a 'name of object 0' that is no Unicode text"),
        ({"question": "caf\udce9?"}, "a 'question' that is no Unicode text"),
        ({"system": "s" * 1_000_001}, "a 'system message' of 1,000,001 characters"),
    ],
)
def test_what_no_reader_could_use_is_refused(changed, problem):
    check_values(RECORD)
    with pytest.raises(RowError, match=problem):
        check_values(replace(RECORD, **changed))


def test_identifiers_that_are_neither_text_nor_number_are_none(tmp_path):
    rows = [ROW | {"id": identifier, "images": ["a.png"]} for identifier in ([1], [1], {"a": 1}, "x", "x")]
    source = read("trl", as_jsonl(image_folder(tmp_path), rows), tmp_path)
    assert [source[index].key for index in range(4)] == [f"line {i}" for i in range(1, 5)]
    with pytest.raises(DataError, match="line 5: has the 'id' of line 4"):
        source[4]


def test_a_chat_template_that_fails_names_the_record(tmp_path):
    """Templates of some models refuse conversations that others take."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = "{{ raise_exception('Conversation roles must alternate') }}"
    source = read("mdpo", as_jsonl(image_folder(tmp_path), [ROW]), tmp_path)
    reader = Reader(source, Encoder(tokenizer, ImageProcessor.square(24), 4, (CHOSEN, REJECTED)))
    for read_one in (reader, reader.lengths):
        with pytest.raises(DataError, match=r"line 1: cannot be read \(TemplateError: Conversation roles"):
            read_one(0)


def test_an_error_nobody_foresaw_names_the_record_and_keeps_its_cause(tmp_path):
    source = read("mdpo", as_jsonl(image_folder(tmp_path), [ROW]), tmp_path)

    class Failing(Encoder):
        """An encoder with a fault."""

        def encode(self, record, source="data"):
            return {}["nowhere"]

    reader = Reader(source, Failing(tiny_tokenizer(), ImageProcessor.square(24), 4, ()))
    with pytest.raises(DataError, match="line 1: cannot be read .KeyError: 'nowhere'") as refused:
        reader(0)
    assert isinstance(refused.value.__cause__, KeyError)


def test_responses_are_ranked_by_rating_or_as_they_are_listed():
    answers = {"second": "B.", "first": "A.", "third": "C."}
    rated = Record("one", (), "What?", answers, ratings={"second": 3.0, "first": 4.5, "third": -1.0})
    assert rated.ranking == ("first", "second", "third")
    assert replace(rated, ratings={}).ranking == ("second", "first", "third")
    assert replace(rated, ratings={"first": 1.0}).ranking == ("second", "first", "third")
    assert replace(rated, ratings=dict.fromkeys(answers, 2.0)).ranking == ("second", "first", "third")
