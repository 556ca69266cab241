"""Every invariant has a history that breaks it, and a near one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.checker import BROKEN_MAX, INVARIANTS, Bounds, check
from chaos.finding import bounds_of
from chaos.history import Event, NoHistoryError, read


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


def held(t: int, node: str, about: str, version: int, state: str = "ALIVE") -> Event:
    value = {"about": about, "generation": 1, "version": version, "state": state, "shown": state}
    return Event(t, node, "member", value)


def submit(t: int, name: str = "s") -> Event:
    return Event(t, "store", "submit", {"step": name})


def ask(number: int, do: str, **value: object) -> Event:
    return Event(number, "a", "ask", {"id": number, "do": do, "step": "s", **value})


def answer(number: int, ok: bool, **value: object) -> Event:
    return Event(number, "a", "answer", {"id": number, "ok": ok, **value})


def claims(number: int, owner: str) -> Event:
    return ask(number, "claim", token=f"{owner}/1/{number}")


def got(number: int, le: int) -> Event:
    return answer(number, le > 0, le=le, ce=1, updated=number)


def writes(number: int, do: str, owner: str, claimed: int, le: int) -> Event:
    return ask(number, do, token=f"{owner}/1/{claimed}", le=le, ce=1)


def expires(number: int, owner: str, claimed: int, le: int, updated: int) -> Event:
    return ask(number, "expire", token=f"{owner}/1/{claimed}", le=le, updated=updated)


def fences(number: int, node: str, generation: int) -> Event:
    return Event(number, node, "ask", {"id": number, "do": "fence", "node": node, "generation": generation})


FAULT = Event(0, "", "fault", {"nodes": ["a", "b"]})
WHOLE = [start(0, "a"), start(0, "b"), seen(1, "a", "b", "ALIVE"), seen(1, "b", "a", "ALIVE")]

BROKEN = {
    "a step that is nowhere in the end": (
        "I1",
        [submit(1), submit(2, "t"), Event(9, "store", "final", {"steps": ["t"]})],
    ),
    "a record that falls": ("I6", [held(1, "a", "b", 3, "SUSPECT"), held(2, "a", "b", 3)]),
    "a record of an earlier version": ("I6", [held(1, "a", "b", 3), held(2, "c", "b", 2), held(3, "a", "b", 2)]),
    "a queue above its cap": ("I11", [Event(1, "a", "sizes", {"news": (3, 9), "questions": (257, 256)})]),
    "a step that hangs": ("I12", [start(0, "a"), submit(1), end(90_000, "a")]),
    "a step that hangs after the last fault": (
        "I12",
        [submit(1), Event(9_000, "", "heal", {"nodes": ["a"]}), step(9_500, "claim", "a", 1), end(90_000, "a")],
    ),
    "an intruder who is believed": (
        "I13",
        [Event(5, "a", "intrusion", {"how": "replayed", "kind": "GOSSIP", "of": "b"})],
    ),
    "a step that two claimed at once": ("I14", [claims(1, "a"), claims(2, "b"), got(1, 1), got(2, 2)]),
    "the same epoch given twice": ("I14", [claims(1, "a"), got(1, 1), claims(2, "b"), got(2, 1)]),
    "a claim that was refused although the step was open": ("I14", [claims(1, "a"), got(1, 0)]),
    "a result taken before its claim": (
        "I14",
        [claims(1, "a"), writes(2, "commit", "a", 1, 1), answer(2, True), claims(3, "b"), got(3, 1), got(1, 1)],
    ),
    "a result taken after another owner's": (
        "I14",
        [
            *[claims(1, "a"), got(1, 1), expires(2, "a", 1, 1, 1), answer(2, True), claims(3, "b"), got(3, 2)],
            *[writes(4, "commit", "b", 3, 2), answer(4, True), writes(5, "commit", "a", 1, 1), answer(5, True)],
        ],
    ),
    "an owner that was taken its step although it had renewed": (
        "I14",
        [
            *[claims(1, "a"), got(1, 1), writes(2, "renew", "a", 1, 1), answer(2, True, updated=7)],
            *[expires(3, "a", 1, 1, 1), answer(3, True)],
        ],
    ),
    "a restart that left its old lease": (
        "I14",
        [claims(1, "a"), got(1, 1), fences(2, "a", 2), answer(2, True, steps=[])],
    ),
    "a result taken under a former cluster epoch": (
        "I14",
        [
            *[claims(1, "a"), got(1, 1), Event(2, "store", "epoch", {"ce": 2})],
            *[writes(3, "commit", "a", 1, 1), answer(3, True)],
        ],
    ),
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
    "a lease renewed although another has the step": (
        "I4",
        [
            *[step(1, "claim", "a", 1, until=5), step(6, "claim", "b", 2, until=11)],
            step(7, "heartbeat", "a", 1, until=12),
        ],
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
    "a step that is there in the end": [submit(1), Event(9, "store", "final", {"steps": ["s"]})],
    "a record that grows": [held(1, "a", "b", 3), held(2, "a", "b", 3, "SUSPECT"), held(6_000, "a", "b", 4)],
    "a record that was pruned": [
        FAULT,
        held(1, "a", "b", 3, "DEAD"),
        Event(2, "a", "pruned", {"about": "b"}),
        held(40_000, "a", "b", 1),
    ],
    "a queue at its cap": [Event(1, "a", "sizes", {"questions": (256, 256)})],
    "a step that ends late": [submit(1), step(80_000, "commit", "a", 1), end(90_000, "a")],
    "a step of just now": [submit(80_000), end(90_000, "a")],
    "nobody who could run a step": [submit(1), end(90_000)],
    "two claims of which one is refused": [claims(1, "a"), claims(2, "b"), got(2, 1), got(1, 0)],
    "a claim that nobody heard of": [
        *[claims(1, "a"), expires(2, "a", 1, 1, 1), answer(2, True), claims(3, "b"), got(3, 2)],
    ],
    "a result that nobody heard of": [
        *[claims(1, "a"), got(1, 1), writes(2, "commit", "a", 1, 1)],
        *[writes(3, "commit", "a", 1, 1), answer(3, False)],
    ],
    "a renewal that nobody heard of": [
        *[claims(1, "a"), got(1, 1), writes(2, "renew", "a", 1, 1)],
        *[expires(3, "a", 1, 1, 9), answer(3, True), claims(4, "b"), got(4, 2)],
    ],
    "a judge who came too late": [
        *[claims(1, "a"), got(1, 1), writes(2, "renew", "a", 1, 1), answer(2, True, updated=7)],
        *[expires(3, "a", 1, 1, 1), answer(3, False)],
    ],
    "a restart that gave its old lease back": [
        *[claims(1, "a"), got(1, 1), fences(2, "a", 2), answer(2, True, steps=["s"])],
        *[claims(3, "b"), got(3, 2)],
    ],
    "a former cluster epoch that is refused": [
        *[claims(1, "a"), got(1, 1), Event(2, "store", "epoch", {"ce": 2})],
        *[writes(3, "commit", "a", 1, 1), answer(3, False)],
    ],
    "a claim after the owner's end": [
        step(1, "claim", "a/1", 1, until=15),
        Event(5, "a", "crash", {"generation": 1}),
        step(6, "claim", "b/1", 2, until=24),
    ],
    "a claim after the owner gave up": [
        step(1, "claim", "a", 1, until=15),
        step(5, "abandon", "a", 1),
        step(6, "claim", "b", 2, until=24),
    ],
    "a result whose owner does not know": [step(1, "result", "a", 1), step(3, "unknown", "a", 1)],
    "one outcome told twice": [step(1, "commit", "a", 1), step(2, "commit", "a", 1)],
    "a retry at a later epoch": [step(1, "commit", "a", 1, out="failed"), step(2, "commit", "b", 2)],
    "a claim after the lease": [step(1, "claim", "a", 1, until=5), step(5, "claim", "b", 2, until=9)],
    "a claim after the release": [
        step(1, "claim", "a", 1, until=50),
        step(3, "release", "a", 1),
        step(4, "claim", "b", 2, until=9),
    ],
    "a lease renewed late, before anybody took the step": [
        *[step(1, "claim", "a", 1, until=5), step(6, "heartbeat", "a", 1, until=11)],
        step(11, "claim", "b", 2, until=20),
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


def test_a_history_that_is_not_there_is_no_wrong_line(tmp_path: Path) -> None:
    with pytest.raises(NoHistoryError) as caught:
        read(tmp_path / "none.jsonl")

    assert str(caught.value).startswith(f"the history {tmp_path / 'none.jsonl'} cannot be read (No such file")


def test_a_history_may_bring_the_times_that_it_is_checked_by() -> None:
    brought = Event(0, "", "bounds", {"suspect_dwell_ms": 500, "dead_dwell_ms": "soon", "down_ms": True, "moon": 1})

    assert bounds_of([]) == Bounds()
    assert bounds_of([Event(0, "a", "leave"), brought]) == Bounds(suspect_dwell_ms=500)
