"""Which records make which batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.data import BatchPlan


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
