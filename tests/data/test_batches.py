"""Batches: the same from any start and with any threads, padded as documented, bad records at weight 0."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.small_models import tiny_tokenizer
from vla_jax.data import (
    CHOSEN,
    REJECTED,
    BatchPlan,
    DataError,
    Encoder,
    Object,
    Record,
    RecordReport,
    batches,
)
from vla_jax.data.batches import collate
from vla_jax.data.image_processing import ImageProcessor
from vla_jax.data.images import Pixels

ENCODER = Encoder(
    tiny_tokenizer(),
    ImageProcessor.square(24),
    4,
    (CHOSEN, REJECTED),
    max_prompt_length=40,
    max_completion_length=24,
)
QUESTIONS = ["What is it?", "Describe the image in a sentence.", "A cat?"]
ANSWERS = ["A cat.", "Two red dogs on the grass.", "No."]
BAD = 4


def record(index):
    boxes = {"objects": (Object("cat", (1.0, 2.0, 9.0, 9.0)),)} if index % 2 else {}
    return Record(
        key=f"line {index}",
        images=(Pixels(np.full((20, 30, 3), index, np.uint8)),),
        question=QUESTIONS[index % 3],
        responses={CHOSEN: ANSWERS[index % 3], REJECTED: ANSWERS[(index + 1) % 3]},
        **boxes,
    )


GOOD = [record(index) for index in range(7)]
WITH_BAD = [replace(r, responses={CHOSEN: "A."}) if i == BAD else r for i, r in enumerate(GOOD)]
PLAN = BatchPlan(len(GOOD), 3, seed=0)


def equal(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("start", [0, 2, 5])
def test_batches_are_the_same_from_any_start_and_with_any_number_of_threads(start, threads):
    expected = [
        collate([ENCODER.encode(GOOD[i]) for i in PLAN.indices(step)], ENCODER) for step in range(start, 6)
    ]
    made = list(batches(GOOD, ENCODER, PLAN, start=start, stop=6, threads=threads))
    assert len(made) == 6 - start
    assert all(map(equal, made, expected))


def test_no_steps_give_no_batches():
    assert list(batches(GOOD, ENCODER, PLAN, start=3, stop=3)) == []


@pytest.mark.smoke
def test_prompts_are_padded_on_the_left_and_responses_on_the_right():
    rows = [ENCODER.encode(r) for r in GOOD[:3]]
    batch = collate(rows, ENCODER)
    assert batch.prefix_tokens.shape == (3, 40) and batch.response_tokens.shape == (3, 2, 24)
    for i, row in enumerate(rows):
        length = len(row.prefix)
        np.testing.assert_array_equal(batch.prefix_tokens[i, -length:], row.prefix)
        np.testing.assert_array_equal(batch.prefix_mask[i], np.arange(40) >= 40 - length)
        for j, (ids, scored) in enumerate(zip(row.responses, row.scored, strict=True)):
            np.testing.assert_array_equal(batch.response_tokens[i, j, : len(ids)], ids)
            np.testing.assert_array_equal(batch.response_mask[i, j], np.arange(24) < len(ids))
            np.testing.assert_array_equal(batch.scored[i, j, : len(ids)], scored)
    assert not batch.prefix_tokens[~batch.prefix_mask].any()
    assert not batch.response_tokens[~batch.response_mask].any()
    assert not batch.scored[~batch.response_mask].any()


def test_images_boxes_ids_and_weights_are_those_of_the_records():
    rows = [ENCODER.encode(r) for r in GOOD]
    batch = collate(rows, ENCODER)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(batch.images[i], row.image)
        np.testing.assert_array_equal(batch.boxes[i], row.box)
        assert batch.record_ids[i] == row.record_id
    assert (batch.weights == 1).all()
    kinds = [np.uint8, np.float32, np.int32, bool, np.int32, bool, bool, np.uint32, np.float32]
    assert [column.dtype for column in batch if column is not None] == kinds


def test_prompts_and_responses_that_just_fit_fill_their_rows():
    row = ENCODER.encode(GOOD[1])
    encoder = replace(ENCODER, max_prompt_length=len(row.prefix), max_completion_length=len(row.responses[0]))
    batch = collate([encoder.encode(GOOD[1])], encoder)
    assert batch.prefix_mask.all() and batch.response_mask[0, 0].all()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_record_becomes_a_row_of_weight_0_and_is_reported_once(threads):
    report = RecordReport()
    made = list(
        batches(WITH_BAD, ENCODER, PLAN, stop=7, skip_bad_records=True, report=report, threads=threads)
    )
    good = list(batches(GOOD, ENCODER, PLAN, stop=7))
    for step, (batch, reference) in enumerate(zip(made, good, strict=True)):
        bad = PLAN.indices(step) == BAD
        np.testing.assert_array_equal(batch.weights, ~bad)
        # One valid token, nothing scored; the other rows are as if it were not there.
        assert (batch.prefix_mask[bad].sum(1) == 1).all()
        assert not batch.scored[bad].any() and not batch.images[bad].any()
        columns = zip(jax.tree.leaves(batch), jax.tree.leaves(reference), strict=True)
        assert all(np.array_equal(a[~bad], b[~bad]) for a, b in columns)
    assert list(report.bad) == ["data, line 4"]
    (error,) = report.bad.values()
    assert "there is no 'rejected' response" in error.problem
    assert sum(report.origins.values()) == len(GOOD) - 1
    assert report.origins == {
        "box of an object the texts name": 2,
        "first box given": 1,
        "central object prior": 2,
        "nothing, where the answer only says no": 1,
    }


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_record_is_an_error_unless_skipped(threads):
    with pytest.raises(DataError, match="data, line 4: there is no 'rejected' response"):
        list(batches(WITH_BAD, ENCODER, PLAN, stop=3, threads=threads))


def test_truncated_records_are_reported():
    report = RecordReport()
    list(batches(GOOD, replace(ENCODER, max_completion_length=6), PLAN, stop=3, report=report))
    encoded = [ENCODER.encode(r) for r in GOOD]
    expected = {row.record_id for row in encoded if max(map(len, row.responses)) > 6}
    assert expected and report.truncated == expected


# --- lengths, masks, changes -------------------------------------------------------------------------


def test_a_batch_is_padded_to_the_next_multiple_and_at_most_to_the_limits():
    rows = [ENCODER.encode(GOOD[i]) for i in range(3)]
    prompt, answer = max(len(r.prefix) for r in rows), max(len(ids) for r in rows for ids in r.responses)
    for multiple in (1, 4, 8):
        encoder = replace(ENCODER, length_multiple=multiple)
        batch = collate(rows, encoder)
        for length, longest, limit in (
            (batch.prefix_tokens.shape[1], prompt, encoder.max_prompt_length),
            (batch.response_tokens.shape[2], answer, encoder.max_completion_length),
        ):
            assert longest <= length <= limit
            assert length == limit or (length % multiple == 0 and length - longest < multiple)
    whole, short = collate(rows, ENCODER), collate(rows, replace(ENCODER, length_multiple=1))
    np.testing.assert_array_equal(whole.response_tokens[..., :answer], short.response_tokens)
    np.testing.assert_array_equal(whole.prefix_tokens[:, -prompt:], short.prefix_tokens)


def test_masks_and_changed_tokens_come_only_where_they_are_asked_for():
    plain = collate([ENCODER.encode(GOOD[0])], ENCODER)
    assert plain.masks is None and plain.changed is None and plain.layout is None
    encoder = replace(ENCODER, masks=True, changes=True)
    batch = collate([encoder.encode(GOOD[0]), None], encoder)
    assert batch.masks is not None and batch.changed is not None
    assert batch.masks.shape == (2, *encoder.processor.tile_size)
    assert batch.changed.shape == batch.response_tokens.shape
    assert not batch.masks[1].any() and not batch.changed[1].any()
    assert not (batch.changed & ~batch.response_mask).any() and batch.changed[0].any()
