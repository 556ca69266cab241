"""The guard against jumps of the wall clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.clock_guard import ClockState, Reading, Verdict, jump_threshold_ms, tick

LEASE_MS = 15_000
THRESHOLD_MS = 7_500
HOUR_MS = 3_600_000
WALL_MS = 1_700_000_000_000


def reading(after_ms: int, *, jumped_ms: int = 0, boot_id: str = "boot-1") -> Reading:
    return Reading(WALL_MS + after_ms + jumped_ms, (5_000 + after_ms) * 1_000_000, boot_id)


def run(*readings: Reading, start: ClockState | None = None) -> list[Verdict]:
    verdicts: list[Verdict] = []
    state = start
    for one in readings:
        verdicts.append(tick(state, one, LEASE_MS))
        state = verdicts[-1].state
    return verdicts


def test_clocks_that_advance_alike_are_believed() -> None:
    verdicts = run(reading(0), reading(1_000), reading(60_000))

    assert [v.believed for v in verdicts] == [True] * 3
    assert [v.jumped_by_ms for v in verdicts] == [0] * 3


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS, THRESHOLD_MS + 1, -THRESHOLD_MS - 1])
def test_a_jump_is_seen_in_both_directions_and_its_size_is_told(jump_ms: int) -> None:
    verdicts = run(reading(0), reading(1_000, jumped_ms=jump_ms))

    assert not verdicts[-1].believed
    assert verdicts[-1].jumped_by_ms == jump_ms


@pytest.mark.parametrize("jump_ms", [THRESHOLD_MS, -THRESHOLD_MS, 300])
def test_a_difference_up_to_the_threshold_is_no_jump(jump_ms: int) -> None:
    assert run(reading(0), reading(1_000, jumped_ms=jump_ms))[-1].believed


def test_the_threshold_is_two_seconds_or_half_a_lease() -> None:
    assert [jump_threshold_ms(lease_ms) for lease_ms in (100, 4_000, 4_002, 15_000)] == [2_000, 2_000, 2_001, 7_500]


def test_the_tick_of_the_jump_and_the_next_one_are_doubted_even_when_the_next_comes_late() -> None:
    verdicts = run(
        reading(0),
        reading(1_000, jumped_ms=HOUR_MS),
        reading(1_000 + 10 * LEASE_MS, jumped_ms=HOUR_MS),
        reading(1_001 + 10 * LEASE_MS, jumped_ms=HOUR_MS),
    )

    assert [v.believed for v in verdicts] == [True, False, False, True]


def test_a_whole_lease_timeout_is_doubted_however_often_it_ticks() -> None:
    times = [1_000, *range(2_000, 1_000 + LEASE_MS, 500), 1_000 + LEASE_MS - 1]

    verdicts = run(reading(0), *(reading(t, jumped_ms=HOUR_MS) for t in [*times, 1_000 + LEASE_MS]))

    assert [v.believed for v in verdicts] == [True, *[False] * len(times), True]


def test_a_jump_back_to_the_right_time_is_a_second_jump() -> None:
    verdicts = run(reading(0), reading(1_000, jumped_ms=HOUR_MS), reading(2_000))

    assert verdicts[-1].jumped_by_ms == -HOUR_MS
    assert verdicts[-1].state.doubted_until_ns == reading(2_000 + LEASE_MS).mono_ns


def test_the_first_tick_has_nothing_to_compare_with() -> None:
    assert run(reading(0))[0] == Verdict(ClockState(WALL_MS, 5_000_000_000, "boot-1"), believed=True)


def test_a_state_of_another_boot_gives_no_verdict_and_is_replaced() -> None:
    former = ClockState(WALL_MS - HOUR_MS, 999_000_000_000, "boot-0", doubted_ticks=1, doubted_until_ns=10**18)

    verdict = run(reading(0), start=former)[0]

    assert verdict == Verdict(ClockState(WALL_MS, 5_000_000_000, "boot-1"), believed=True)


def test_a_monotonic_clock_that_went_back_is_another_boot_in_disguise() -> None:
    assert run(reading(60_000), reading(0, jumped_ms=HOUR_MS))[-1].believed


def test_doubt_is_handed_on_between_processes_through_the_state() -> None:
    state = run(reading(0), reading(1_000, jumped_ms=HOUR_MS))[-1].state

    later = tick(state, reading(3_000, jumped_ms=HOUR_MS), LEASE_MS)

    assert not later.believed


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(-HOUR_MS, HOUR_MS)), max_size=20))
def test_no_tick_within_a_lease_of_a_large_jump_is_believed(steps: list[tuple[int, int]]) -> None:
    now_ms, offset_ms, doubted_until_ms = 0, 0, -1
    state = tick(None, reading(0), LEASE_MS).state
    for advance_ms, jump_ms in steps:
        now_ms += advance_ms
        offset_ms += jump_ms
        if abs(jump_ms) > THRESHOLD_MS:
            doubted_until_ms = now_ms + LEASE_MS

        verdict = tick(state, reading(now_ms, jumped_ms=offset_ms), LEASE_MS)

        state = verdict.state
        assert (verdict.jumped_by_ms != 0) == (abs(jump_ms) > THRESHOLD_MS)
        if now_ms < doubted_until_ms:
            assert not verdict.believed
