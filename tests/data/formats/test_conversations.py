"""LLaVA's conversations: POVID, LLaVA-Instruct and its mixture, LLaVA-RLHF."""

import numpy as np
import pytest

from tests.published_files import PIXELS, all_of, as_json, image_folder, read, said
from vla_jax.data import CHOSEN, REJECTED, DataError, Turn


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path)


def test_povid_takes_the_last_part_of_the_images_path(folder):
    row = {
        "id": "000000000009",
        "image": "/authors/data/a.png",
        "conversations": said("<image>\nWhat is it?", "A cat."),
        "rejected_conversations": said("<image>\nWhat is it?", "A cat and a hat."),
    }
    longer = row | {
        "conversations": said("What?\n<image>", "A cat.", "Why?", "It purrs."),
        "rejected_conversations": said("What?\n<image>", "A cat.", "Why?", "It barks."),
    }
    first, second = all_of(read("povid", as_json(folder, [row, longer]), folder))
    assert (first.question, first.history) == ("What is it?", ())
    assert first.responses == {CHOSEN: "A cat.", REJECTED: "A cat and a hat."}
    assert (second.question, second.history) == ("Why?", (Turn("What?", "A cat."),))
    assert second.responses == {CHOSEN: "It purrs.", REJECTED: "It barks."}
    np.testing.assert_array_equal(first.image, PIXELS)


def test_povid_refuses_answers_to_different_questions(folder):
    row = {
        "image": "a.png",
        "conversations": said("Why?", "So."),
        "rejected_conversations": said("What?", "A."),
    }
    with pytest.raises(DataError, match="row 0: has two conversations that ask different things"):
        read("povid", as_json(folder, [row]), folder)[0]


def test_llava_instruct_has_several_turns_and_rows_without_an_image(folder):
    rows = [
        {
            "id": "9",
            "image": "coco/000000000009.png",
            "conversations": said("What?\n<image>", "A.", "Why?", "B."),
        },
        {"id": "9", "image": "coco/000000000009.png", "conversations": said("<image>\nHow?", "C.")},
        {"id": 7, "model": "", "conversations": said("Write a poem.", "No.")},
        # ShareGPT's begin with an answer now and then, or end with a question.
        {"id": "z", "conversations": said("left out", "Hello?", "Hi.", "Bye?")[1:]},
    ]
    rows[3]["conversations"] = [{"from": "gpt", "value": "Left out."}, *said("Hello?", "Hi.", "Bye?")]
    first, second, third, fourth = all_of(read("llava_instruct", as_json(folder, rows), folder))
    assert (first.question, first.responses) == ("What?", {CHOSEN: "A."})
    assert first.further_turns == (Turn("Why?", "B."),) and second.question == "How?"
    assert third.images == () and third.responses == {CHOSEN: "No."}
    assert (fourth.question, fourth.responses, fourth.further_turns) == ("Hello?", {CHOSEN: "Hi."}, ())
    assert len({record.key for record in (first, second, third, fourth)}) == 4
    np.testing.assert_array_equal(first.image, PIXELS)


@pytest.mark.parametrize(
    "row, problem",
    [
        ({"conversations": said("<image>\nWhat?", "A.")}, "has 1 <image> placeholders for 0 images"),
        (
            {"image": "a.png", "conversations": said("<image><image> What?", "A.")},
            "2 <image> placeholders for 1",
        ),
        (
            {"image": "a.png", "conversations": said("What?", "A.", "<image> Why?", "B.")},
            "after the first question",
        ),
        ({"conversations": said("What?")}, "a conversation without an answer"),
        ({"conversations": []}, "a conversation of nothing"),
        ({"conversations": said("What?", "A.")[:1] * 2}, "a conversation of user user"),
        ({"conversations": said("<image>", "A."), "image": "a.png"}, "asks nothing"),
        ({"conversations": said("What?", " ")}, "an empty answer in its conversation"),
        ({"conversations": [{"from": "bot", "value": "A."}]}, "a turn from 'bot'"),
        ({"conversations": [{"from": "human"}]}, "a turn that is no"),
        ({"conversations": "What?"}, "has no list 'conversations'"),
    ],
)
def test_conversations_that_make_no_sense_are_refused(folder, row, problem):
    with pytest.raises(DataError, match=problem):
        read("llava_instruct", as_json(folder, [row]), folder)[0]


@pytest.mark.parametrize("nest", [lambda turns: turns, lambda turns: [turns]])
@pytest.mark.parametrize("preferred", [1, 2])
def test_llava_rlhf_names_the_preferred_output(folder, nest, preferred):
    row = {
        "id": "000000329126",
        "image": "a.png",
        "conversations": nest(said("<image>\nWhat?", "A cat.", "Why?")),
        "output_1": {"from": "llava", "value": "It purrs."},
        "output_2": {"from": "llava", "value": "It barks."},
        "preference": preferred,
        "hallucination": True,
    }
    (record,) = all_of(read("llava_rlhf", as_json(folder, [row]), folder))
    assert (record.history, record.question) == ((Turn("What?", "A cat."),), "Why?")
    answers = ["It purrs.", "It barks."]
    assert record.responses == {CHOSEN: answers[preferred - 1], REJECTED: answers[2 - preferred]}


def test_llava_rlhf_without_a_preference_is_refused(folder):
    row = {"conversations": said("What?"), "preference": 0}
    with pytest.raises(DataError, match="has a 'preference' of 0; write 1 or 2"):
        read("llava_rlhf", as_json(folder, [row]), folder)[0]
