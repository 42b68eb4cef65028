"""The object an answer rests on: the first without which it is no longer given."""

from dataclasses import replace

import numpy as np
import pytest

from vla_jax.data import CHOSEN, Object, Record
from vla_jax.data.images import Pixels
from vla_jax.rollout.verifying import Verdict, still_right, verify

BOX = (0.0, 0.0, 4.0, 4.0)
IMAGE = Pixels(np.zeros((8, 8, 3), np.uint8))


def record(answer, *names, question="What is there?", image=IMAGE):
    objects = tuple(Object(name, BOX) for name in names)
    return Record("key", (image,) if image else (), question, {CHOSEN: answer}, objects=objects)


def said_without(replies):
    """A model that says this without that object, by name."""

    def ask(records):
        asked.append([one.objects[one.key_object].name for one in records])
        return [replies[one.objects[one.key_object].name] for one in records]

    asked = []
    return ask, asked


@pytest.mark.smoke
def test_objects_are_tried_in_order_until_the_answer_is_no_longer_right():
    # Without the cat it still says "cat", as a model that guesses does; without the dog it says so.
    ask, asked = said_without({"cat": "A cat and a dog.", "dog": "A cat.", "bus": "A tree."})
    records = [
        record("A cat, a dog, a bus.", "bus", "dog", "cat"),
        record("A bus.", "bus", "dog"),
        record("A cat.", "cat"),
    ]
    assert verify(records, ask) == [Verdict(1, 2), Verdict(0, 1), Verdict(None, 1)]
    assert asked == [["cat", "bus", "cat"], ["dog"]]


def test_an_object_outside_of_what_the_model_sees_is_passed_over_and_not_counted():
    ask, _ = said_without({"cat": None, "dog": "Nothing."})
    assert verify([record("A cat and a dog.", "cat", "dog")], ask) == [Verdict(1, 1)]
    assert verify([record("A cat.", "cat")], ask) == [Verdict(None, 0)]


@pytest.mark.parametrize(
    "known",
    [
        record("No.", "cat", question="Is there a dog?"),
        record("A cat."),
        record("A cat.", "cat", image=None),
    ],
)
def test_where_no_object_is_known_the_model_is_not_asked(known):
    ask, asked = said_without({})
    assert verify([known], ask) == [Verdict(None, 0)] and asked == []


def test_no_records_have_no_verdicts():
    assert verify([], said_without({})[0]) == []


@pytest.mark.parametrize(
    "answer, reply, right",
    [
        ("Yes, two cats.", "yes", True),
        ("Yes.", "No, a cat.", False),
        ("No.", "no cat", True),
        ("No.", "A cat.", False),
        # About the cat, which is the key object.
        ("A cat and a dog.", "Two CATS.", True),
        ("A cat and a dog.", "A dog.", False),
        ("A cat and a dog.", "A catalogue and a dog.", False),
        # About others alone: all of them.
        ("A dog and a bus.", "A bus and a dog.", True),
        ("A dog and a bus.", "A bus.", False),
        # About nothing known.
        ("It is red.", "it is red", True),
        ("It is red.", "It is blue.", False),
    ],
)
def test_a_reply_is_right_where_it_says_what_the_answer_says(answer, reply, right):
    assert still_right(replace(record(answer, "cat", "dog", "bus"), key_object=0), reply) is right
