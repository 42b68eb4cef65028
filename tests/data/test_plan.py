"""Which records make which batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.data import BatchPlan
from vla_jax.data.plan import Part


@given(num_records=st.integers(1, 40), batch_size=st.integers(1, 60), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_epoch_shows_each_record_once_wherever_batches_end(num_records, batch_size, seed):
    plan = BatchPlan(num_records, batch_size, seed)
    steps = 3 * num_records // batch_size + 1
    walked = np.concatenate([plan.indices(step) for step in range(steps)])
    for epoch in range(len(walked) // num_records):
        seen = walked[epoch * num_records : (epoch + 1) * num_records]
        np.testing.assert_array_equal(np.sort(seen), np.arange(num_records))


@pytest.mark.smoke
def test_a_batch_is_a_function_of_seed_and_step():
    first, again = BatchPlan(100, 8, 1), BatchPlan(100, 8, 1)
    backwards = {step: again.indices(step) for step in reversed(range(30))}
    for step in range(30):
        np.testing.assert_array_equal(first.indices(step), backwards[step])
    assert (first.indices(0) != BatchPlan(100, 8, 2).indices(0)).any()


def test_epochs_have_different_orders():
    plan = BatchPlan(50, 50, 0)
    assert (plan.indices(0) != plan.indices(1)).any()


def test_a_batch_may_straddle_two_epochs():
    plan = BatchPlan(5, 3, 0)
    first, straddling = plan.indices(0), plan.indices(1)
    assert sorted([*first, *straddling[:2]]) == [0, 1, 2, 3, 4]
    assert len(straddling) == 3


def test_a_batch_larger_than_the_data_set_repeats_it():
    indices = BatchPlan(3, 8, 0).indices(0)
    assert [sorted(indices[:3]), sorted(indices[3:6])] == [[0, 1, 2]] * 2 and len(indices) == 8


def test_the_epoch_is_what_the_batches_have_shown():
    assert BatchPlan(100, 32, 0).epoch(25) == 8.0


@pytest.mark.parametrize(
    "num_records, batch_size, problem", [(0, 4, "the data set is empty"), (4, 0, "batch_size is 0")]
)
def test_a_plan_of_nothing_is_refused(num_records, batch_size, problem):
    with pytest.raises(ValueError, match=problem):
        BatchPlan(num_records, batch_size, 0)


# --- a part of the records -----------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, np.random.default_rng(0).integers(1, 50, (100, 2))])
def test_of_a_limited_plan_every_epoch_shows_its_choice_once_and_nothing_else(lengths):
    plan = BatchPlan(100, 8, seed=3, limit=32, lengths=lengths)
    walked = np.concatenate([plan.indices(step) for step in range(32)])
    np.testing.assert_array_equal(
        np.bincount(walked, minlength=100), 8 * np.isin(np.arange(100), plan.chosen)
    )
    assert len(plan.chosen) == 32 and plan.epoch(4) == 1
    assert set(plan.records(steps=1)) <= set(plan.chosen)


def test_a_choice_depends_on_the_seed_and_grows_with_the_limit():
    """So that runs on 5,000, 7,000 and 10,000 records differ in what is added alone."""
    small, large, other = (
        BatchPlan(100, 8, seed, limit=limit).chosen for seed, limit in ((0, 20), (0, 50), (1, 20))
    )
    assert set(small) < set(large) and set(small) != set(other)
    # From all over the file, whatever it is sorted by.
    assert small.min() < 20 and small.max() > 80
    np.testing.assert_array_equal(BatchPlan(100, 8, 0).chosen, np.arange(100))


def test_as_many_as_there_are_may_be_chosen_and_no_more():
    np.testing.assert_array_equal(BatchPlan(100, 8, 0, limit=100).chosen, np.arange(100))
    with pytest.raises(
        ValueError, match="data.limit is 7,000, and there are 5,000 records; lower it, or set it to 0"
    ):
        BatchPlan(5000, 8, 0, limit=7000)


def test_of_what_a_filter_lets_pass_every_epoch_shows_all_once_and_a_limit_chooses():
    odd = np.arange(1, 100, 2)
    plan = BatchPlan(100, 10, seed=3, passing=odd)
    walked = np.concatenate([plan.indices(step) for step in range(10)])
    np.testing.assert_array_equal(np.sort(walked), np.repeat(odd, 2))
    assert plan.epoch(5) == 1
    few = BatchPlan(100, 10, seed=3, passing=odd, limit=20)
    assert set(few.chosen) < set(odd) and len(few.chosen) == 20
    assert set(few.indices(0)) | set(few.indices(1)) == set(few.chosen)
    with pytest.raises(ValueError, match="data.limit is 51, and there are 50 records"):
        BatchPlan(100, 10, 0, passing=odd, limit=51)
    with pytest.raises(ValueError, match="data.filter lets none of 100 records pass"):
        BatchPlan(100, 10, 0, passing=odd[:0])
    with pytest.raises(ValueError, match="data.limit and data.filter are for one source"):
        BatchPlan(100, 10, 0, (Part(50, 1), Part(50, 1)), passing=odd)


# --- mixtures and lengths ------------------------------------------------------------------------------

PARTS = (Part(70, 1.0), Part(30, 3.0), Part(7, 0.5))


@pytest.mark.parametrize("lengths", [None, np.random.default_rng(0).integers(0, 50, (107, 2))])
def test_in_a_mixture_every_source_has_its_share_and_epochs_of_its_own(lengths):
    plan = BatchPlan(107, 16, seed=4, mixture=PARTS, lengths=lengths)
    walked = np.concatenate([plan.indices(step) for step in range(1920)])
    first = np.cumsum([0, *(part.size for part in PARTS)])
    for number, part in enumerate(PARTS):
        own = walked[(walked >= first[number]) & (walked < first[number + 1])]
        share = part.weight / sum(each.weight for each in PARTS)
        assert len(own) / len(walked) == pytest.approx(share, abs=2e-3)
        # No record comes twice more often than another one.
        counts = np.bincount(own - first[number], minlength=part.size)
        assert counts.max() - counts.min() <= 1


@given(step=st.integers(0, 3000), batch_size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_a_batch_of_a_mixture_is_a_function_of_the_step_too(step, batch_size):
    once, again = (BatchPlan(107, batch_size, seed=1, mixture=PARTS) for _ in range(2))
    later = again.indices(step + 1)
    np.testing.assert_array_equal(once.indices(step), again.indices(step))
    np.testing.assert_array_equal(once.indices(step + 1), later)


def test_records_of_like_lengths_are_batched_together_and_none_is_lost():
    both = np.random.default_rng(1).integers(10, 500, (256, 2))
    sorted_plan, plain = (BatchPlan(256, 8, 0, lengths=each) for each in (both, None))
    lengths = both.sum(axis=1)

    def waste(plan):
        taken = [lengths[plan.indices(step)] for step in range(32)]
        return sum((each.max() - each).sum() for each in taken)

    assert waste(sorted_plan) < waste(plain) / 10
    walked = np.concatenate([sorted_plan.indices(step) for step in range(32)])
    np.testing.assert_array_equal(np.sort(walked), np.arange(256))
    # Short and long batches come in a random order.
    means = [lengths[sorted_plan.indices(step)].mean() for step in range(32)]
    assert 5 < np.sum(np.diff(means) > 0) < 26


def test_how_long_a_batch_is_follows_from_the_plan():
    lengths = np.random.default_rng(2).integers(10, 500, (100, 2))
    plan = BatchPlan(100, 8, 0, lengths=lengths)
    for step in range(40):
        assert plan.longest(step) == tuple(lengths[plan.indices(step)].max(axis=0))
    assert BatchPlan(100, 8, 0).longest(0) is None


def test_the_records_to_measure_decide_every_batch_that_is_asked_for():
    lengths = np.random.default_rng(3).integers(10, 500, (1000, 2))
    needed = BatchPlan(1000, 4, 0).records(steps=40)
    assert 2 * 32 * 4 - 20 < len(needed) < 1000
    measured = np.ones_like(lengths)
    measured[needed] = lengths[needed]
    whole, part = (BatchPlan(1000, 4, 0, lengths=each) for each in (lengths, measured))
    for step in range(40):
        np.testing.assert_array_equal(whole.indices(step), part.indices(step))


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"lengths": np.zeros(5)}, "5 lengths for 107 records"),
        ({"mixture": PARTS, "limit": 9}, "data.limit and data.filter are for one source of data"),
        ({"mixture": PARTS[:2]}, "hold not 107 records together"),
        ({"mixture": (Part(106, 1.0), Part(1, 1e-9))}, "at weight 1e-09 is never read"),
        ({"mixture": (Part(107, 1.0), Part(0, 1.0))}, "a part of 0 records"),
    ],
)
def test_a_plan_whose_parts_make_no_whole_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        BatchPlan(107, 8, 0, **options)
