"""Which object an answer is about: LPOI's order of the search, then the fallbacks."""

from dataclasses import replace

import numpy as np
import pytest

from vla_jax.data import Object, Record
from vla_jax.data.images import Pixels
from vla_jax.data.key_object import CENTRAL, DENIED, GIVEN, NAMED, UNNAMED, candidates, key_object

BOXES = {
    "cat": (0.0, 0.0, 10.0, 10.0),
    "dog": (10.0, 0.0, 20.0, 10.0),
    "dining table": (20.0, 0.0, 30.0, 10.0),
    "bus": (30.0, 0.0, 40.0, 10.0),
}


def record(*names, question="What is it?", unboxed=()):
    objects = [Object(name, BOXES[name]) for name in names] + [Object(name) for name in unboxed]
    return Record("key", (Pixels(np.zeros((40, 80, 3), np.uint8)),), question, {}, objects=tuple(objects))


def found(record, answer):
    box, origin, _ = key_object(record, answer)
    assert origin == NAMED
    return next(name for name, known in BOXES.items() if known == box)


@pytest.mark.smoke
def test_the_answers_first_sentence_comes_before_the_question_and_that_before_the_rest():
    asked = record("cat", "dog", "bus", question="Is there a dog?")
    assert found(asked, "A bus stands there. The cat sleeps.") == "bus"
    assert found(asked, "It is sunny. The cat sleeps.") == "dog"
    assert found(record("cat", "dog"), "It is sunny. The cat sleeps.") == "cat"


def test_of_a_sentences_objects_the_first_named_is_taken_not_the_first_listed():
    assert found(record("cat", "dog"), "A dog chases a cat.") == "dog"


@pytest.mark.parametrize(
    "answer, name",
    [
        ("Two cats.", "cat"),
        ("Two buses.", "bus"),
        ("A CAT.", "cat"),
        ("Dining tables everywhere.", "dining table"),
        ("The cat's tail, a dog.", "cat"),
    ],
)
def test_plurals_and_capitals_are_names_too(answer, name):
    assert found(record("dog", "bus", "cat", "dining table"), answer) == name


@pytest.mark.parametrize("answer", ["A catalogue.", "A bobcat.", "A table.", "Scattered."])
def test_parts_of_words_are_no_names(answer):
    assert key_object(record("cat", "dining table"), answer).origin == UNNAMED


def test_a_named_object_without_a_box_is_passed_over():
    assert found(record("dog", unboxed=["cat"]), "A cat and a dog.") == "dog"


def masked(name, *pixels):
    """An object without a box whose mask has these (row, column)s."""
    mask = np.zeros((40, 80), bool)
    for pixel in pixels:
        mask[pixel] = True
    return Object(name, mask=mask)


def test_an_object_with_a_mask_and_no_box_lies_in_the_box_around_its_mask():
    cat, dog = masked("cat", (3, 70), (9, 12)), masked("dog", (39, 79))
    both = replace(record(), objects=(cat, dog))
    for answer, known, box in (
        ("A cat.", cat, (12.0, 3.0, 71.0, 10.0)),
        ("A dog.", dog, (79.0, 39.0, 80.0, 40.0)),  # one pixel, in the last row and column
    ):
        found = key_object(both, answer)
        assert found[:2] == (box, NAMED)
        np.testing.assert_array_equal(found.mask, known.mask)
    assert key_object(both, "A tree.")[:2] == ((12.0, 3.0, 71.0, 10.0), UNNAMED)


def test_a_box_that_is_given_counts_whatever_the_mask_is():
    given = replace(masked("cat", (30, 70)), box=BOXES["cat"])
    assert key_object(replace(record(), objects=(given,)), "A cat.")[:2] == (BOXES["cat"], NAMED)


def test_a_mask_that_covers_nothing_is_passed_over_as_if_there_were_none():
    hidden = replace(record("dog"), objects=(masked("cat"), Object("dog", BOXES["dog"])))
    assert found(hidden, "A cat and a dog.") == "dog"
    assert key_object(replace(hidden, objects=(masked("cat"),)), "A cat.").origin == CENTRAL


def test_without_a_name_that_matches_the_first_box_is_taken():
    assert key_object(record("dog", "cat"), "A tree.")[:2] == (BOXES["dog"], UNNAMED)
    image = Pixels(np.zeros((40, 80, 3), np.uint8))
    nameless = Record("key", (image,), "?", {}, objects=(Object("", BOXES["bus"]),))
    assert key_object(nameless, "A bus.")[:2] == (BOXES["bus"], UNNAMED)


@pytest.mark.parametrize("unboxed", [(), ("cat",)])
def test_without_any_box_the_centre_of_the_image_is_taken(unboxed):
    # The central half of each side of an 80 x 40 image.
    assert key_object(record(unboxed=unboxed), "A cat.")[:2] == ((20.0, 10.0, 60.0, 30.0), CENTRAL)


@pytest.mark.parametrize("answer", ["No.", "no", "No, there is none."])
def test_a_denial_of_something_absent_is_about_no_box(answer):
    for names in (("cat",), ()):
        box, origin, _ = key_object(record(*names, question="Is there a dog?"), answer)
        assert origin == DENIED and box == (0, 0, 0, 0)


def test_a_denial_about_something_boxed_is_about_that():
    assert found(record("cat", "dog", question="Is the dog black?"), "No.") == "dog"


@pytest.mark.parametrize("answer", ["Nothing special.", "Not a soul.", "Noon."])
def test_other_words_deny_nothing(answer):
    assert key_object(record("cat"), answer).origin == UNNAMED


def test_what_the_data_says_comes_before_every_word():
    said = replace(record("cat", "dog"), key_object=1)
    assert key_object(said, "A cat.")[:2] == (BOXES["dog"], GIVEN)
    assert key_object(replace(said, objects=(Object("cat"), masked("dog", (3, 4)))), "No.").box == (
        4,
        3,
        5,
        4,
    )


def test_candidates_are_the_named_in_the_papers_order_then_the_others_as_they_are_given():
    asked = record("dining table", "cat", "bus", "dog", question="Is there a dog?", unboxed=["tree"])
    assert candidates(asked, "A tree, a bus. The cat sleeps.") == (2, 3, 1, 0)
    twice = record("cat", "dog", "cat")
    assert candidates(twice, "A dog and two cats. The dog sleeps.") == (1, 0, 2)
    assert key_object(twice, "A dog and two cats.").box == BOXES["dog"]


def test_a_denial_of_something_absent_has_no_candidates():
    assert candidates(record("cat", question="Is there a dog?"), "No.") == ()
    assert candidates(record("cat", question="Is there a cat?"), "No.") == (0,)
