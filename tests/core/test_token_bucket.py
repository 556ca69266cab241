"""How many starts a rate allows, over any clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.token_bucket import Bucket, Rate, available, due_in_ms, full, settled, spend

NOON = 1_700_000_000_000
rates = st.builds(Rate, st.integers(1, 50), st.integers(1, 5_000), st.integers(1, 20))


def test_a_full_bucket_gives_its_burst_and_then_one_start_at_a_time() -> None:
    rate = Rate(count=2, period_ms=1_000, burst=3)

    empty = spend(rate, full(rate, NOON), NOON, 3)

    assert available(rate, empty, NOON + 499) == 0
    assert due_in_ms(rate, empty, NOON) == 500
    assert available(rate, empty, NOON + 500) == 1
    assert available(rate, empty, NOON + 1_499) == 2
    assert available(rate, empty, NOON + 3_600_000) == 3


def test_a_clock_that_jumps_ahead_gives_no_more_than_the_bucket_holds() -> None:
    rate = Rate(count=100, period_ms=1_000, burst=5)
    empty = spend(rate, full(rate, NOON), NOON, 5)

    assert available(rate, empty, NOON + 10**12) == 5


def test_a_clock_that_is_set_back_gives_nothing_twice_and_stops_nothing() -> None:
    rate = Rate(count=1, period_ms=1_000, burst=2)
    empty = spend(rate, full(rate, NOON), NOON, 2)
    hour_ago = NOON - 3_600_000

    kept = settled(empty, hour_ago)

    assert available(rate, empty, hour_ago) == 0
    assert available(rate, kept, hour_ago + 999) == 0
    assert available(rate, kept, hour_ago + 1_000) == 1


def test_more_than_the_bucket_has_cannot_be_spent() -> None:
    rate = Rate(1, 1_000, 2)

    with pytest.raises(ValueError, match="more than"):
        spend(rate, full(rate, NOON), NOON, 3)
    with pytest.raises(ValueError, match="more than"):
        spend(rate, Bucket(0, NOON), NOON, -1)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (10**9, 1, 1), (1, 10**12, 1), (1, 1, 10**9)])
def test_a_rate_out_of_its_bounds_is_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="of a rate is"):
        Rate(*numbers)


@given(rates, st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 25)), max_size=40))
def test_in_any_span_no_more_start_than_the_burst_and_what_came_in_it(rate: Rate, asks: list[tuple[int, int]]) -> None:
    bucket, now = full(rate, NOON), NOON
    started: list[tuple[int, int]] = []
    for pause, wanted in asks:
        now += pause
        granted = min(wanted, available(rate, bucket, now))
        bucket = spend(rate, bucket, now, granted)
        started.append((now, granted))

    for first in range(len(started)):
        for last in range(first, len(started)):
            span_ms = started[last][0] - started[first][0]
            total = sum(count for _, count in started[first : last + 1])
            assert total * rate.period_ms <= rate.burst * rate.period_ms + span_ms * rate.count


@given(rates, st.lists(st.tuples(st.integers(-10_000, 10_000), st.integers(1, 25)), max_size=30))
def test_however_the_clock_jumps_one_look_never_gives_more_than_the_burst(
    rate: Rate, asks: list[tuple[int, int]]
) -> None:
    bucket, now = full(rate, NOON), NOON
    for jump, wanted in asks:
        now += jump
        bucket = settled(bucket, now)
        there = available(rate, bucket, now)
        assert 0 <= there <= rate.burst
        bucket = spend(rate, bucket, now, min(there, wanted))


@given(rates, st.integers(0, 20), st.integers(0, 10_000))
def test_when_the_next_start_is_due_it_is_there_and_not_a_millisecond_before(
    rate: Rate, spent: int, later: int
) -> None:
    bucket = spend(rate, full(rate, NOON), NOON, min(spent, rate.burst))
    now = NOON + later

    due = now + due_in_ms(rate, bucket, now)

    assert available(rate, bucket, due) >= 1
    assert due == now or available(rate, bucket, due - 1) == 0
