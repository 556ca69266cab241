"""How many steps a worker process is sent ahead, and when they are taken back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.credit import CREDIT_MAX, WINDOW_MS, Ahead, Pace, credit, observed, overdue, overdue_at_ns

MS = 1_000_000


def after(*durations_ms: float) -> Pace:
    pace = Pace()
    for duration_ms in durations_ms:
        pace = observed(pace, int(duration_ms * MS))
    return pace


def test_an_agent_that_nobody_has_seen_yet_gets_one_step_at_a_time() -> None:
    assert credit(Pace()) == 1


@pytest.mark.parametrize(
    ("mean_ms", "expected"), [(0, 64), (0.05, 64), (0.16, 62), (1, 10), (3, 3), (5, 2), (5.1, 1), (10, 1), (60_000, 1)]
)
def test_the_credit_is_ten_milliseconds_of_work_between_1_and_64(mean_ms: float, expected: int) -> None:
    assert credit(after(mean_ms)) == expected


def test_one_slow_step_takes_the_credit_away_at_once() -> None:
    fast = after(*[0.1] * 100)

    assert credit(fast) == CREDIT_MAX
    assert credit(observed(fast, (WINDOW_MS + 1) * MS)) == 1


def test_a_step_that_is_running_too_long_takes_the_credit_away_before_it_ends() -> None:
    fast = after(*[0.1] * 100)

    assert credit(fast, running_for_ns=WINDOW_MS * MS) == CREDIT_MAX
    assert credit(fast, running_for_ns=WINDOW_MS * MS + 1) == 1


def test_the_credit_comes_back_after_some_thirty_short_steps_however_slow_the_slow_one_was() -> None:
    slow = after(3_600_000)
    needed = 0
    while credit(slow) == 1:
        slow, needed = observed(slow, MS // 10), needed + 1

    assert 10 <= needed <= 30


def test_a_short_step_counts_for_an_eighth() -> None:
    assert after(8, 0).mean_ns == 7 * MS


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-5, 10**12), max_size=50), st.integers(0, 10**11))
def test_the_credit_is_always_within_its_bounds_and_never_above_the_window(durations: list[int], running: int) -> None:
    pace = Pace()
    for duration_ns in durations:
        pace = observed(pace, duration_ns)

    given_credit = credit(pace, running)

    assert 1 <= given_credit <= CREDIT_MAX
    if given_credit > 1:
        assert pace.mean_ns is not None
        assert given_credit * pace.mean_ns <= WINDOW_MS * MS
    if durations and durations[-1] > WINDOW_MS * MS:
        assert given_credit == 1


def test_nothing_is_revoked_before_the_first_in_line_has_waited_50_ms() -> None:
    waiting = [Ahead(1, 0), Ahead(2, 49 * MS)]

    assert overdue(50 * MS - 1, waiting) == ()
    assert overdue_at_ns(waiting) == 50 * MS


def test_all_that_stand_behind_the_slow_step_are_revoked_together() -> None:
    assert overdue(50 * MS, [Ahead(1, 0), Ahead(2, 49 * MS)]) == (1, 2)


def test_an_empty_line_is_never_overdue() -> None:
    assert overdue(10**15, []) == ()
    assert overdue_at_ns([]) is None
