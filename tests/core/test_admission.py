"""Whether new work may come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.admission import MINUTE_MS, Bounds, Load, RefusalCode, Room, Window, judge, room

steps = st.lists(st.integers(1, 40), max_size=30)


def test_the_bounds_answer_in_the_order_depth_running_rate() -> None:
    full = Load(queue_depth=10, running_steps=5, window=Window(1, 7))

    assert judge(Bounds(10, 5, 7), full, 1) is RefusalCode.QUEUE_DEPTH
    assert judge(Bounds(11, 5, 7), full, 1) is RefusalCode.RUNNING_STEPS
    assert judge(Bounds(11, 6, 7), full, 1) is RefusalCode.RATE
    assert judge(Bounds(11, 6, 8), full, 1) is None


def test_a_rate_of_nought_and_a_bound_that_is_none_hold_nobody_back() -> None:
    crowded = Load(queue_depth=10**9, running_steps=10**9, window=Window(1, 10**9))

    assert judge(Bounds(per_minute=0), crowded, 100) is None
    assert not Bounds(per_minute=0)
    assert Bounds(per_minute=1) and Bounds(queue_depth=1) and Bounds(running_steps=1)


def test_another_minute_begins_a_new_window_also_when_the_clock_went_back() -> None:
    window = Window(10, 99)

    assert window.at(10 * MINUTE_MS + 59_999) == window
    assert window.at(11 * MINUTE_MS) == Window(11, 0)
    assert window.at(9 * MINUTE_MS) == Window(9, 0)


@given(steps, st.integers(0, 200), st.integers(1, 200), st.integers(1, 200))
def test_what_is_admitted_one_after_another_never_exceeds_a_bound(
    sizes: list[int], waiting: int, depth_max: int, per_minute: int
) -> None:
    bounds = Bounds(queue_depth=depth_max, per_minute=per_minute)
    load = Load(waiting, 0, Window(3, 0))
    for size in sizes:
        if judge(bounds, load, size) is None:
            load = load.with_admitted(size)

    admitted = load.queue_depth - waiting
    assert admitted == load.window.admitted <= per_minute
    assert admitted == 0 or load.queue_depth <= depth_max


def test_room_is_what_the_narrowest_bound_leaves_and_none_while_one_is_reached() -> None:
    load = Load(queue_depth=6, running_steps=2, window=Window(1, 7))

    assert room(Bounds(10, 5, 20), load) == Room(4)
    assert room(Bounds(100, 5, 9), load) == Room(2)
    assert room(Bounds(running_steps=3), load) == Room()
    assert room(Bounds(running_steps=2), load) == Room(0, RefusalCode.RUNNING_STEPS)
    assert (Room().within(7), Room(3).within(7)) == (7, 3)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50), st.integers(0, 50))
def test_whatever_fits_into_the_room_would_be_admitted_and_nothing_more(
    depth: int, admitted: int, depth_max: int, per_minute: int
) -> None:
    bounds = Bounds(queue_depth=depth_max, per_minute=per_minute)
    load = Load(depth, 0, Window(3, admitted))

    steps = room(bounds, load).steps

    assert steps is not None
    assert steps == 0 or judge(bounds, load, steps) is None
    assert judge(bounds, load, steps + 1) is not None
