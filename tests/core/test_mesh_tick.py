"""One gossip tick: what is counted, what is kept, and to whom it goes on."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.mesh.event import Event, EventKind, Flood, Seen
from relaymesh.core.mesh.silence import Patience
from relaymesh.core.mesh.tick import AHEAD_MS_MAX, HEARTBEATS_MAX, Heartbeat, Tick, plausible, sample

NOON = 1_700_000_000_000
PATIENCE = Patience()
SEEDS = ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1")


def a_tick(fanout: int = 9) -> Tick:
    flood = Flood("me", "10.0.0.9:1", 0, Seen(60_000, 64))
    return Tick(flood, "me", SEEDS, fanout, PATIENCE, random.Random(1))


def said(origin: str, number: int = 1) -> Event:
    return Event(origin, SEEDS[0], 0, number, int(EventKind.HEARTBEAT), b"")


def test_a_heartbeat_is_kept_and_goes_on_to_all_but_its_sender_and_its_origin() -> None:
    tick = a_tick()

    on = tick.hear(NOON, SEEDS[1], said("a"), Heartbeat(NOON - 5, (("c", NOON - 9),)), 2)

    assert sorted(on.to) == [SEEDS[2], SEEDS[3]]
    assert on.hops_left == 1
    assert (tick.accepted, tick.deduplicated, tick.invalid) == (1, 0, 0)
    assert [(one.origin, one.beat.at_ms, one.beat.nodes) for one in tick.said] == [("a", NOON - 5, (("c", NOON - 9),))]


def test_no_more_are_told_than_the_fanout_says() -> None:
    assert len(a_tick(fanout=1).hear(NOON, SEEDS[1], said("a"), Heartbeat(NOON), 2).to) == 1


def test_the_last_hop_is_the_last() -> None:
    assert a_tick().hear(NOON, SEEDS[1], said("a"), Heartbeat(NOON), 1).to == ()


def test_a_packet_that_comes_again_is_counted_and_nothing_else() -> None:
    tick = a_tick()
    tick.hear(NOON, SEEDS[1], said("a"), Heartbeat(NOON), 2)

    again = tick.hear(NOON, SEEDS[2], said("a"), Heartbeat(NOON + 1), 2)

    assert again.to == ()
    assert (tick.accepted, tick.deduplicated, len(tick.said)) == (1, 1, 1)


def test_our_own_packet_counts_as_nothing() -> None:
    tick = a_tick()

    assert tick.hear(NOON, SEEDS[1], said("me"), Heartbeat(NOON), 2).to == ()
    assert (tick.accepted, tick.deduplicated, tick.invalid, tick.said) == (0, 0, 0, [])


def test_a_heartbeat_too_old_or_too_far_ahead_is_invalid_and_goes_no_further() -> None:
    tick = a_tick()

    assert tick.hear(NOON, SEEDS[1], said("a", 1), Heartbeat(NOON - 120_001), 2).to == ()
    assert tick.hear(NOON, SEEDS[1], said("a", 2), Heartbeat(NOON + AHEAD_MS_MAX + 1), 2).to == ()

    assert (tick.accepted, tick.invalid, tick.said) == (0, 2, [])


def test_of_what_a_node_tells_of_others_only_the_plausible_is_kept_and_nothing_about_us() -> None:
    tick = a_tick()
    nodes = (("old", NOON - 120_001), ("new", NOON - 1), ("me", NOON), ("ahead", NOON + AHEAD_MS_MAX + 1))

    tick.hear(NOON, SEEDS[1], said("a"), Heartbeat(NOON, nodes), 1)

    assert tick.said[0].beat.nodes == (("new", NOON - 1),)


def test_a_heartbeat_without_a_time_counts_as_of_now() -> None:
    tick = a_tick()

    tick.hear(NOON, SEEDS[1], said("a"), Heartbeat(0), 1)

    assert tick.said[0].beat.at_ms == NOON


def test_an_event_of_a_kind_that_is_not_known_is_passed_on() -> None:
    on = a_tick().hear(NOON, SEEDS[1], said("a")._replace(kind=200), None, 2)

    assert len(on.to) == 2


def test_what_is_kept_of_one_tick_is_bounded() -> None:
    tick = a_tick()
    nodes = tuple((f"n{number}", NOON) for number in range(64))

    for number in range(400):
        tick.hear(NOON, SEEDS[1], said("a", number), Heartbeat(NOON, nodes), 1)

    assert sum(1 + len(one.beat.nodes) for one in tick.said) <= HEARTBEATS_MAX


def test_even_where_death_comes_fast_ten_seconds_are_believed() -> None:
    fast = Patience(suspect_after_ms=100, dead_after_ms=200)

    assert plausible(NOON - 10_000, now_ms=NOON, patience=fast)
    assert not plausible(NOON - 10_001, now_ms=NOON, patience=fast)


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=40), st.integers(0, 1 << 41))), st.integers(1, 40), st.integers()
)
def test_a_sample_is_drawn_from_what_is_known_within_its_bounds(
    known: list[tuple[str, int]], most: int, seed: int
) -> None:
    drawn = sample(random.Random(seed), known, most, 500)

    assert len(drawn) <= most
    assert sum(len(node_id.encode()) + 2 for node_id, _ in drawn) <= 500
    assert all(one in known for one in drawn)
    if sum(len(node_id.encode()) + 13 for node_id, _ in known) <= 500:
        assert len(drawn) == min(most, len(known))
