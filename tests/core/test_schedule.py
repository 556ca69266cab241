from __future__ import annotations

import random
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.cron import Cron
from relaymesh.core.schedule import (
    MISSED_MAX,
    ON_TIME_MS,
    Calendar,
    Decision,
    Interval,
    Missed,
    Once,
    Overlap,
    Placed,
    decide,
    jitter_ms_of,
    place,
    ticks_between,
)


class Listed:
    """A calendar of instants in a list, which counts how often it is asked."""

    def __init__(self, ticks: list[int]) -> None:
        self.ticks = sorted(set(ticks))
        self.asked = 0

    def after(self, at_ms: int) -> int | None:
        self.asked += 1
        return next((tick for tick in self.ticks if tick > at_ms), None)


instants = st.integers(0, 2_000_000)
calendars = st.one_of(
    st.builds(Interval, st.integers(-1000, 1_000_000), st.integers(1000, 500_000)),
    st.builds(Once, instants),
    st.builds(Listed, st.lists(instants, max_size=60)),
    st.just(Cron("*/3 * * * *", UTC)),
)


def due(calendar: Calendar, cursor_ms: int, now_ms: int) -> list[int]:
    return ticks_between(calendar, cursor_ms + 1, now_ms, 10_000)


@given(calendars, instants, instants, st.sampled_from(Missed), st.integers(1, 20), st.integers(1, 30))
def test_a_look_makes_what_its_policy_says_and_leaves_the_rest_for_later(
    calendar: Calendar, cursor_ms: int, now_ms: int, missed: Missed, missed_max: int, limit: int
) -> None:
    decision = decide(calendar, cursor_ms=cursor_ms, now_ms=now_ms, missed=missed, missed_max=missed_max, limit=limit)

    ticks = due(calendar, min(cursor_ms, now_ms), now_ms)
    wanted = {
        Missed.SKIP: [tick for tick in ticks[-1:] if now_ms - tick <= ON_TIME_MS],
        Missed.LATEST: ticks[-1:],
        Missed.ALL: ticks[-missed_max:],
    }[missed]
    assert list(decision.made) == wanted[:limit]
    passed = ticks[: len(ticks) - len(wanted)]
    assert decision.passed == ((passed[0], passed[-1]) if passed else None)
    # Nothing is left out without a word: due is what was made, passed over, or comes after the cursor.
    later = [tick for tick in ticks if tick > decision.cursor_ms]
    assert [*passed, *decision.made, *later] == ticks
    assert decision.next_ms == calendar.after(decision.cursor_ms)


@given(calendars, st.lists(instants, max_size=25), st.sampled_from(Missed), st.integers(1, 5))
def test_no_tick_is_made_twice_and_none_lost_however_the_clock_jumps(
    calendar: Calendar, looks: list[int], missed: Missed, limit: int
) -> None:
    """The store holds each tick once; so what may be decided about twice is only what lies behind a clock set back."""
    cursor_ms = 0
    store: set[int] = set()
    passed: list[tuple[int, int]] = []
    for now_ms in looks:
        decision = decide(calendar, cursor_ms=cursor_ms, now_ms=now_ms, missed=missed, missed_max=3, limit=limit)
        assert decision.cursor_ms <= now_ms
        assert all(tick <= now_ms for tick in decision.made)
        if now_ms >= cursor_ms:
            assert all(tick > cursor_ms for tick in decision.made)
            assert decision.cursor_ms >= cursor_ms
        store.update(decision.made)
        if decision.passed is not None:
            passed.append(decision.passed)
        cursor_ms = decision.cursor_ms

    decided = due(calendar, 0, cursor_ms)
    lost = [tick for tick in decided if tick not in store and not any(first <= tick <= last for first, last in passed)]
    assert lost == []


@given(st.permutations(range(1, 40)), st.integers(1, 5))
def test_looking_often_with_all_makes_every_tick_once(order: list[int], width: int) -> None:
    calendar = Interval(0, 10_000)
    made: list[int] = []
    cursor_ms = 0
    for now_ms in range(0, 400_001, width * 7_000):
        decision = decide(calendar, cursor_ms=cursor_ms, now_ms=now_ms, missed=Missed.ALL, missed_max=MISSED_MAX)
        made += decision.made
        cursor_ms = decision.cursor_ms

    assert made == list(range(10_000, cursor_ms + 1, 10_000))


@pytest.mark.parametrize("missed", Missed)
def test_a_look_after_years_asks_the_calendar_a_bounded_number_of_times(missed: Missed) -> None:
    class Counted:
        asked = 0

        def after(self, at_ms: int) -> int:
            self.asked += 1
            return (at_ms // 60_000 + 1) * 60_000

    calendar = Counted()

    decision = decide(calendar, cursor_ms=0, now_ms=10 * 365 * 86_400_000, missed=missed, missed_max=MISSED_MAX)

    assert len(decision.made) == {Missed.SKIP: 1, Missed.LATEST: 1, Missed.ALL: MISSED_MAX}[missed]
    assert calendar.asked <= (100 if missed is not Missed.ALL else 5 * MISSED_MAX)


def test_a_sparse_calendar_behind_a_crowd_of_ticks_is_walked_back_all_the_same() -> None:
    ticks = [*range(0, 50_000, 1000), 10**12, 2 * 10**12]
    calendar = Listed(ticks)

    decision = decide(calendar, cursor_ms=0, now_ms=3 * 10**12, missed=Missed.ALL, missed_max=10)

    assert list(decision.made) == sorted(ticks)[-10:]


def test_a_look_that_is_cut_short_goes_on_with_the_next() -> None:
    calendar = Interval(0, 1000)

    first = decide(calendar, cursor_ms=0, now_ms=10_000, missed=Missed.ALL, missed_max=6, limit=4)
    second = decide(calendar, cursor_ms=first.cursor_ms, now_ms=10_000, missed=Missed.ALL, missed_max=6, limit=4)

    assert first == Decision((5000, 6000, 7000, 8000), (1000, 4000), 8000, 9000)
    assert second == Decision((9000, 10_000), None, 10_000, 11_000)


def test_a_clock_that_is_set_back_takes_the_cursor_with_it() -> None:
    decision = decide(Interval(0, 60_000), cursor_ms=86_400_000, now_ms=90_000, missed=Missed.LATEST)

    assert decision == Decision((), None, 90_000, 120_000)


@pytest.mark.parametrize(
    ("overlap", "last_runs", "queued", "expected"),
    [
        (Overlap.ALLOW, True, False, Placed.SUBMITTED),
        (Overlap.SKIP, False, False, Placed.SUBMITTED),
        (Overlap.SKIP, True, False, Placed.PASSED_OVER),
        (Overlap.QUEUE, False, False, Placed.SUBMITTED),
        (Overlap.QUEUE, True, False, Placed.QUEUED),
        (Overlap.QUEUE, True, True, Placed.PASSED_OVER),
        (Overlap.QUEUE, False, True, Placed.PASSED_OVER),
    ],
)
def test_what_becomes_of_a_tick_while_the_last_run_goes_on(
    overlap: Overlap, last_runs: bool, queued: bool, expected: Placed
) -> None:
    assert place(overlap, last_runs=last_runs, queued=queued) is expected


@given(st.text(max_size=20), instants, st.integers(0, 100_000))
def test_jitter_is_bounded_and_the_same_for_whoever_asks(schedule_id: str, tick_ms: int, jitter_ms: int) -> None:
    late = jitter_ms_of(schedule_id, tick_ms, jitter_ms)

    assert 0 <= late <= jitter_ms
    assert late == jitter_ms_of(schedule_id, tick_ms, jitter_ms)


def test_jitter_spreads_schedules_that_tick_together() -> None:
    late = {jitter_ms_of(f"sch_{number}", 1_000, 60_000) for number in range(100)}

    assert len(late) > 90
    assert max(late) - min(late) > 40_000


def test_an_interval_ticks_in_step_with_its_anchor_before_it_as_well() -> None:
    rng = random.Random(7)
    for _ in range(200):
        anchor, every, at = rng.randrange(10**6), rng.randrange(1000, 10**5), rng.randrange(10**6)

        tick = Interval(anchor, every).after(at)

        assert at < tick <= at + every and (tick - anchor) % every == 0
