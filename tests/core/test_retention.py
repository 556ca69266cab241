"""How large a piece of a clean-up is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.retention import HOLD_NS_MAX, ROWS_MAX, ROWS_MIN, TARGET_NS, Pace, next_pace, pause_ns

paces = st.integers(ROWS_MIN, ROWS_MAX).map(Pace)
times = st.integers(0, 10**12)


@given(paces, st.integers(-1, 10**6), times)
def test_a_piece_is_never_empty_never_unbounded_and_never_more_than_twice_the_last(
    pace: Pace, rows: int, took_ns: int
) -> None:
    following = next_pace(pace, rows=rows, took_ns=took_ns)

    assert ROWS_MIN <= following.rows <= min(ROWS_MAX, 2 * pace.rows)


@given(paces, st.integers(1, 10**6), st.integers(1, 10**9))
def test_the_next_piece_of_equal_rows_fits_the_target(pace: Pace, rows: int, row_ns: int) -> None:
    following = next_pace(pace, rows=rows, took_ns=rows * row_ns)

    assert following.rows == ROWS_MIN or following.rows * row_ns <= TARGET_NS


@given(st.integers(1, HOLD_NS_MAX // ROWS_MIN // 2))
def test_rows_twice_as_heavy_as_all_before_stay_below_the_bound(row_ns: int) -> None:
    pace = Pace()
    for _ in range(20):
        pace = next_pace(pace, rows=pace.rows, took_ns=pace.rows * row_ns)

    assert pace.rows * row_ns * 2 <= HOLD_NS_MAX


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
