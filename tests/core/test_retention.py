"""How large a piece of a clean-up is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.retention import (
    HOLD_NS_MAX,
    ROWS_MAX,
    ROWS_MIN,
    ROWS_STEP,
    TARGET_NS,
    WORK_NS,
    Pace,
    is_spent,
    next_pace,
    pause_ns,
)

paces = st.integers(ROWS_MIN, ROWS_MAX).map(Pace)
times = st.integers(0, 10**12)
row_times = st.integers(1, 10**9)


@given(paces, st.integers(-1, 10**6), times)
def test_a_piece_is_never_empty_never_unbounded_and_never_more_than_a_step_above_the_last(
    pace: Pace, rows: int, took_ns: int
) -> None:
    following = next_pace(pace, rows=rows, took_ns=took_ns)

    assert ROWS_MIN <= following.rows <= min(ROWS_MAX, pace.rows + ROWS_STEP)


@given(paces, st.integers(1, ROWS_MAX), st.integers(TARGET_NS + 1, 10**12))
def test_a_piece_that_held_the_writer_for_too_long_halves_the_next_at_least(
    pace: Pace, rows: int, took_ns: int
) -> None:
    following = next_pace(pace, rows=rows, took_ns=took_ns)

    assert following.rows == ROWS_MIN or (
        following.rows <= pace.rows // 2 and following.rows * took_ns <= rows * TARGET_NS
    )


@given(paces, st.integers(0, TARGET_NS))
def test_only_a_full_piece_that_was_fast_lets_the_next_one_grow(pace: Pace, took_ns: int) -> None:
    full = next_pace(pace, rows=pace.rows, took_ns=took_ns)
    half = next_pace(pace, rows=pace.rows - 1, took_ns=took_ns)

    assert (full.rows, half) == (min(ROWS_MAX, pace.rows + ROWS_STEP), pace)


@given(row_times)
def test_pieces_of_equal_rows_settle_about_the_target(row_ns: int) -> None:
    pace, longest, sizes = Pace(), 0, []
    for number in range(500):
        took_ns = pace.rows * row_ns
        if number > 300:
            longest = max(longest, took_ns)
            sizes.append(pace.rows)
        pace = next_pace(pace, rows=pace.rows, took_ns=took_ns)

    assert longest <= max(TARGET_NS + ROWS_STEP * row_ns, ROWS_MIN * row_ns)
    fitting = min(ROWS_MAX, TARGET_NS // row_ns)
    assert sum(sizes) / len(sizes) >= min(fitting, max(ROWS_MIN, fitting / 2 - ROWS_STEP))


@given(st.integers(1, HOLD_NS_MAX // ROWS_MIN // 2))
def test_rows_twice_as_heavy_as_all_before_stay_below_the_bound(row_ns: int) -> None:
    pace = Pace()
    for _ in range(300):
        pace = next_pace(pace, rows=pace.rows, took_ns=pace.rows * row_ns)

    # A piece works until WORK_NS have passed, whatever its rows weigh, and one unit longer.
    assert min(pace.rows * row_ns * 2, WORK_NS + row_ns * 2) <= HOLD_NS_MAX


def test_a_piece_ends_when_its_time_is_spent() -> None:
    assert [is_spent(ns) for ns in (0, WORK_NS - 1, WORK_NS)] == [False, False, True]


def test_a_piece_of_which_nothing_was_learnt_changes_nothing() -> None:
    assert next_pace(Pace(77), rows=0, took_ns=10**9) == Pace(77)


@given(times)
def test_others_get_the_writer_at_least_as_long_as_it_was_held(took_ns: int) -> None:
    assert pause_ns(took_ns) >= took_ns


def test_a_slow_disk_does_not_make_a_piece_so_small_that_a_clean_up_never_ends() -> None:
    pace = Pace()
    for _ in range(100):
        pace = next_pace(pace, rows=pace.rows, took_ns=40_000_000)  # the commit alone

    assert pace.rows == ROWS_MIN
