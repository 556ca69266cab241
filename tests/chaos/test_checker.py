"""Every invariant has a history that breaks it, and a near one that does not."""

from __future__ import annotations

import pytest

from chaos.checker import BROKEN_MAX, INVARIANTS, Bounds, check
from chaos.history import Event


def step(
    t: int, f: str, owner: str, le: int, *, ce: int = 1, node: str = "n1", until: int = 0, out: str = "ok"
) -> Event:
    value: dict[str, object] = {"step": "s", "ce": ce, "le": le, "owner": owner}
    if f in ("claim", "heartbeat"):
        value["until"] = until
    if f == "commit":
        value["outcome"] = out
    return Event(t, node, f, value)


def seen(t: int, node: str, about: str, state: str, shown: str = "") -> Event:
    return Event(t, node, "member", {"about": about, "state": state, "shown": shown or state})


def start(t: int, node: str, generation: int = 1) -> Event:
    return Event(t, node, "start", {"generation": generation})


def end(t: int, *nodes: str) -> Event:
    return Event(t, "", "end", {"nodes": list(nodes)})


FAULT = Event(0, "", "fault", {"nodes": ["a", "b"]})
WHOLE = [start(0, "a"), start(0, "b"), seen(1, "a", "b", "ALIVE"), seen(1, "b", "a", "ALIVE")]

BROKEN = {
    "two outcomes at one epoch": ("I2", [step(1, "commit", "a", 1), step(2, "commit", "a", 1, out="other")]),
    "two owners at one epoch": ("I2", [step(1, "commit", "a", 1), step(2, "commit", "b", 1)]),
    "an epoch that falls": ("I3", [step(1, "claim", "a", 2, until=2), step(9, "claim", "a", 1, until=10)]),
    "a cluster epoch that falls": (
        "I3",
        [Event(1, "a", "epoch", {"ce": 4}), Event(2, "a", "epoch", {"ce": 3})],
    ),
    "a generation used again": ("I3", [start(1, "a", 2), start(2, "a", 2)]),
    "a commit of a fenced owner": (
        "I4",
        [step(1, "claim", "a", 1, until=2), step(3, "claim", "b", 2, until=9), step(4, "commit", "a", 1)],
    ),
    "two owners at a time": ("I5", [step(1, "claim", "a", 1, until=15), step(9, "claim", "b", 2, until=24)]),
    "a lease renewed after its end": (
        "I5",
        [step(1, "claim", "a", 1, until=5), step(6, "heartbeat", "a", 1, until=11)],
    ),
    "views that differ in the end": ("I7", [*WHOLE, seen(5, "a", "b", "SUSPECT"), end(9, "a", "b")]),
    "a live node that nobody knows": ("I7", [*WHOLE, start(5, "c"), end(9, "a", "b", "c")]),
    "a dead node that nobody noticed": (
        "I8",
        [*WHOLE, Event(10, "b", "crash", {"generation": 1}), end(90_000, "a")],
    ),
    "a verdict without a reason": ("I9", [*WHOLE, seen(5, "a", "b", "DEAD")]),
    "a recovery before its time": (
        "I10",
        [FAULT, seen(0, "a", "b", "DEAD"), seen(29_000, "a", "b", "ALIVE", "ALIVE")],
    ),
    "a result that nobody answered": ("I15", [step(1, "claim", "a", 1, until=9), step(3, "result", "a", 1)]),
}
FINE = {
    "one outcome told twice": [step(1, "commit", "a", 1), step(2, "commit", "a", 1)],
    "a retry at a later epoch": [step(1, "commit", "a", 1, out="failed"), step(2, "commit", "b", 2)],
    "a claim after the lease": [step(1, "claim", "a", 1, until=5), step(5, "claim", "b", 2, until=9)],
    "a claim after the release": [
        step(1, "claim", "a", 1, until=50),
        step(3, "release", "a", 1),
        step(4, "claim", "b", 2, until=9),
    ],
    "a renewed lease": [step(1, "claim", "a", 1, until=5), step(4, "heartbeat", "a", 1, until=9)],
    "a fenced owner that is refused": [
        step(1, "claim", "a", 1, until=2),
        step(3, "claim", "b", 2, until=9),
        step(4, "result", "a", 1),
        step(4, "reject", "a", 1),
    ],
    "a crash that is known": [
        *WHOLE,
        Event(10, "", "fault", {"nodes": ["b"]}),
        Event(10, "b", "crash", {"generation": 1}),
        seen(6_000, "a", "b", "DEAD"),
        end(90_000, "a"),
    ],
    "a crash of just now": [*WHOLE, Event(80_000, "b", "crash", {"generation": 1}), end(90_000, "a")],
    "a recovery in its time": [FAULT, seen(0, "a", "b", "DEAD"), seen(30_000, "a", "b", "ALIVE", "ALIVE")],
    "a restart that forgets": [FAULT, seen(0, "a", "b", "DEAD"), start(5, "a", 2), seen(9, "a", "b", "ALIVE")],
    "nothing": [],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_history_with(name: str) -> None:
    invariant, events = BROKEN[name]

    assert invariant in {one.invariant for one in check(events)}


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_wrong_with(name: str) -> None:
    assert check(FINE[name]) == []


def test_every_invariant_has_a_history_that_breaks_it() -> None:
    assert {invariant for invariant, _ in BROKEN.values()} == set(INVARIANTS)


def test_leases_may_overlap_where_nobody_promised_otherwise() -> None:
    _, events = BROKEN["two owners at a time"]

    assert check(events, Bounds(exclusive=False)) == []


def test_no_more_than_a_hundred_violations_of_one_kind_are_listed() -> None:
    events = [start(at, "a", 1) for at in range(2 * BROKEN_MAX)]

    assert len(check(events)) == BROKEN_MAX
