"""Batches are functions of their number: every example once an epoch, in another order."""

from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.training.errors import TrainingError
from model_core.training.order import ShuffledBatches, in_order
from model_core.training.runs import ScheduleSection
from model_core.training.schedule import Schedule, share_of_peak

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 9), st.one_of(st.none(), st.integers(20, 60)))
def test_an_epoch_has_every_example_once_within_the_limits(lengths, rows, tokens):
    batches = ShuffledBatches(lengths, rows=rows, tokens=tokens, seed=3)
    first = 0
    for epoch in range(3):
        found = [batches[number] for number in range(first, first + batches.size(epoch))]
        first += batches.size(epoch)
        assert sorted(chain(*found)) == list(range(len(lengths)))
        for batch in found:
            assert len(batch) <= rows
            padded = len(batch) * max(lengths[index] for index in batch)
            assert tokens is None or padded <= tokens


@given(LENGTHS, st.integers(1, 9), st.integers(0, 200))
def test_a_batch_is_the_same_whichever_were_asked_for_before(lengths, rows, number):
    fresh = ShuffledBatches(lengths, rows=rows, seed=1)
    used = ShuffledBatches(lengths, rows=rows, seed=1)
    for other in (7, 0, number // 2):
        used[other]
    assert used[number] == fresh[number]


def test_epochs_and_seeds_have_orders_of_their_own():
    batches = ShuffledBatches([1] * 100, rows=100, seed=1)
    assert batches[0] != batches[1]
    assert batches[0] != ShuffledBatches([1] * 100, rows=100, seed=2)[0]


@given(LENGTHS, st.integers(1, 9))
def test_measuring_sees_every_example_once(lengths, rows):
    assert sorted(chain(*in_order(lengths, rows=rows))) == list(range(len(lengths)))


def test_an_example_that_no_batch_can_hold_is_refused():
    with pytest.raises(TrainingError, match=r"30 tokens, a batch at most 20"):
        ShuffledBatches([3, 30], rows=4, tokens=20, seed=0)
    with pytest.raises(TrainingError, match="no examples"):
        ShuffledBatches([], rows=4, seed=0)


def shares(schedule: Schedule, final_share: float = 0.1) -> list[float]:
    return [
        share_of_peak(schedule, step, steps=1000, warmup=100, final_share=final_share)
        for step in range(1, 1001)
    ]


@pytest.mark.parametrize("schedule", Schedule)
def test_schedules_rise_in_a_line_to_the_peak_and_never_again(schedule: Schedule):
    found = shares(schedule)
    assert found[:100] == pytest.approx([step / 100 for step in range(1, 101)])
    assert all(later <= earlier for earlier, later in pairwise(found[99:]))


def test_a_tenth_of_the_steps_rises_unless_told_otherwise():
    assert ScheduleSection().warmup_of(500) == 50
    assert ScheduleSection().warmup_of(10**6) == 4_000
    assert ScheduleSection(warmup_steps=0).warmup_of(500) == 0


def test_schedules_end_where_they_say():
    assert shares(Schedule.COSINE)[-1] == pytest.approx(0.1)
    assert shares(Schedule.COSINE)[549] == pytest.approx(0.55)  # half way down
    assert shares(Schedule.LINEAR, 0.0)[-1] == pytest.approx(0.0)
    # Vaswani et al. 2017, equation 3, over its peak.
    formula = [min(s**-0.5, s * 100**-1.5) / 100**-0.5 for s in range(1, 1001)]
    assert shares(Schedule.INVERSE_SQRT) == pytest.approx(formula)
