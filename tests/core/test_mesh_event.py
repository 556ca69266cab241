"""Events that travel over several hops: taken once, passed on while they have hops left, remembered within bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.mesh.event import HOPS_MAX, Event, EventKind, Flood, Seen, hops, targets

HERE, THERE = "10.0.0.1:17888", "10.0.0.2:17888"
WINDOW_MS = 60_000


def an_event(number: int = 1, origin: str = "a", generation: int = 1) -> Event:
    return Event(origin, HERE, generation, number, int(EventKind.HEARTBEAT), b"")


def a_flood(node: str = "b", **seen: int) -> Flood:
    return Flood(node, THERE, 1, Seen(seen.get("window_ms", WINDOW_MS), seen.get("most", 64)))


@pytest.mark.parametrize(
    ("members", "fanout", "expected"),
    [(1, 3, 2), (3, 3, 3), (12, 3, 5), (100, 3, 7), (1_000, 3, 9), (100, 2, 9), (5, 1, 5), (4_096, 1, HOPS_MAX)],
)
def test_without_a_wish_the_hops_follow_the_size_of_the_mesh(members: int, fanout: int, expected: int) -> None:
    assert hops(0, members=members, fanout=fanout) == expected


def test_a_wish_for_hops_counts_within_bounds() -> None:
    assert hops(2, members=4_096, fanout=3) == 2
    assert hops(10**9, members=2, fanout=3) == HOPS_MAX


@given(st.lists(st.integers(0, 20)), st.integers(1, 6), st.sets(st.integers(0, 20)), st.integers())
def test_targets_are_different_known_and_not_those_that_are_left_out(
    known: list[int], fanout: int, but: set[int], seed: int
) -> None:
    found = targets(random.Random(seed), known, fanout, but)

    assert len(set(found)) == len(found) == min(fanout, len(set(known) - but))
    assert set(found) <= set(known) - but


def test_every_target_is_drawn_now_and_then() -> None:
    rng = random.Random(3)

    assert {one for _ in range(200) for one in targets(rng, range(9), 2)} == set(range(9))


def test_an_event_is_taken_once_and_has_one_hop_less_behind_us() -> None:
    flood = a_flood()

    assert flood.take(0, an_event(), 3) == (True, 2)
    assert flood.take(WINDOW_MS - 1, an_event(), 3) == (False, 0)
    assert flood.take(0, an_event(number=2), 1) == (True, 0)


def test_the_same_number_of_another_generation_or_origin_is_another_event() -> None:
    flood = a_flood()
    flood.take(0, an_event(), 2)

    assert flood.take(0, an_event(generation=2), 2).fresh
    assert flood.take(0, an_event(origin="c"), 2).fresh


def test_our_own_event_that_comes_back_goes_no_further() -> None:
    flood = a_flood("a")

    assert flood.take(0, flood.publish(EventKind.HEARTBEAT, b""), 9) == (False, 0)


def test_events_of_a_node_are_numbered_upwards() -> None:
    flood = Flood("a", HERE, 4, Seen(WINDOW_MS, 64), number=7)

    made = [flood.publish(EventKind.HEARTBEAT, b"x") for _ in range(3)]

    assert [(event.generation, event.number) for event in made] == [(4, 8), (4, 9), (4, 10)]


def test_after_the_window_an_event_may_come_again() -> None:
    flood = a_flood()
    flood.take(0, an_event(), 2)

    assert flood.take(WINDOW_MS, an_event(), 2).fresh


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 400)), max_size=300))
def test_what_is_remembered_never_exceeds_twice_its_maximum(steps: list[tuple[int, int]]) -> None:
    seen, now_ms, taken = Seen(10_000, 64), 0, {}
    for gap_ms, number in steps:
        now_ms += gap_ms
        fresh = seen.take(now_ms, (1, 1, number))
        if not fresh:
            assert now_ms - taken[number] < 10_000
        taken[number] = now_ms if fresh else taken[number]
        assert len(seen) <= 2 * 64


def test_above_the_maximum_what_expires_first_is_forgotten_first() -> None:
    seen = Seen(WINDOW_MS, 64)

    for number in range(129):
        seen.take(number, (1, 1, number))

    assert len(seen) == 64
    assert not seen.take(200, (1, 1, 128))
    assert seen.take(200, (1, 1, 64))


def test_a_trim_drops_what_has_expired_but_not_more_often_than_every_five_seconds() -> None:
    seen = Seen(1_000, 64)
    seen.take(0, (1, 1, 1))
    seen.take(4_999, (1, 1, 2))
    assert len(seen) == 2

    seen.take(5_000, (1, 1, 3))

    assert len(seen) == 2


def test_what_was_seen_holds_for_the_next_process_but_no_longer_than_a_window() -> None:
    before = Seen(WINDOW_MS, 64)
    before.take(10**9, (1, 1, 1))  # by a clock that was ahead
    before.take(100, (1, 1, 2))
    after = Seen(WINDOW_MS, 64)

    after.restore(1_000, before.entries())

    assert not after.take(1_000, (1, 1, 1))
    assert not after.take(1_000, (1, 1, 2))
    assert after.take(1_000 + WINDOW_MS, (1, 1, 1))


def test_no_more_is_taken_over_than_may_be_held() -> None:
    after = Seen(WINDOW_MS, 64)

    after.restore(0, [((1, 1, number), number + 1) for number in range(1_000)])

    assert len(after) == 64
    assert not after.take(0, (1, 1, 999))


@pytest.mark.parametrize("fanout", [2, 3])
def test_with_hops_by_size_an_event_reaches_nearly_all_of_a_hundred_nodes(fanout: int) -> None:
    rng = random.Random(11)
    names = [f"n{number}" for number in range(100)]
    reached = []
    for _ in range(20):
        nodes = {name: Flood(name, HERE, 1, Seen(WINDOW_MS, 4_096)) for name in names}
        event = nodes["n0"].publish(EventKind.HEARTBEAT, b"")
        wave = [(to, hops(0, members=100, fanout=fanout)) for to in targets(rng, names[1:], fanout)]
        got = {"n0"}
        while wave:
            name, left = wave.pop(0)
            taken = nodes[name].take(0, event, left)
            if taken.fresh:
                got.add(name)
                if taken.hops_left:
                    wave += [(to, taken.hops_left) for to in targets(rng, names, fanout, (name, "n0"))]
        reached.append(len(got))

    # A node is missed when nobody draws it; digests repair what events miss.
    assert sum(reached) / len(reached) >= (75 if fanout == 2 else 90)
