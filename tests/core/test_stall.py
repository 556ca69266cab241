"""Work that is ready, slots that are free, and nothing that moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.stall import FreeSlots, Waiting, stalled_for_ms

NOON = 1_000_000


def node(free: int = 1, *, agent: str = "echo", since_ms: int = 0) -> FreeSlots:
    return FreeSlots({agent: "inline"}, {"inline": free}, since_ms)


def test_work_that_a_free_slot_could_have_taken_counts_from_the_last_movement() -> None:
    waiting = [Waiting("echo", NOON - 60_000)]

    assert stalled_for_ms(waiting, [node()], moved_at_ms=NOON - 12_000, now_ms=NOON) == 12_000
    assert stalled_for_ms(waiting, [node()], moved_at_ms=None, now_ms=NOON) == 60_000


def test_work_that_became_ready_later_than_the_last_movement_counts_from_then() -> None:
    assert stalled_for_ms([Waiting("echo", NOON - 3_000)], [node()], moved_at_ms=5, now_ms=NOON) == 3_000


def test_a_node_that_has_just_started_is_given_its_time() -> None:
    waiting = [Waiting("echo", 0)]

    assert stalled_for_ms(waiting, [node(since_ms=NOON - 200)], moved_at_ms=None, now_ms=NOON) == 200


def test_busy_slots_are_no_stall() -> None:
    assert stalled_for_ms([Waiting("echo", 0)], [node(free=0)], moved_at_ms=None, now_ms=NOON) == 0


def test_slots_that_cannot_run_the_agent_are_no_stall() -> None:
    assert stalled_for_ms([Waiting("other", 0)], [node()], moved_at_ms=None, now_ms=NOON) == 0


def test_an_agent_at_its_own_limit_is_no_stall() -> None:
    assert stalled_for_ms([Waiting("echo", 0, room=0)], [node()], moved_at_ms=None, now_ms=NOON) == 0
    assert stalled_for_ms([Waiting("echo", 0, room=1)], [node()], moved_at_ms=None, now_ms=NOON) == NOON


def test_without_a_node_there_is_nothing_that_could_move() -> None:
    assert stalled_for_ms([Waiting("echo", 0)], [], moved_at_ms=None, now_ms=NOON) == 0


@given(st.integers(0, 2 * NOON), st.integers(0, 2 * NOON), st.one_of(st.none(), st.integers(0, 2 * NOON)))
def test_a_stall_is_never_longer_than_any_of_its_three_causes(ready: int, free: int, moved: int | None) -> None:
    stalled = stalled_for_ms([Waiting("echo", ready)], [node(since_ms=free)], moved_at_ms=moved, now_ms=NOON)

    assert 0 <= stalled <= max(0, NOON - max(ready, free, moved or 0))
