"""What must hold in a history of members: who is there, who is held dead, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chaos.finding import Bounds, Check, Finding
from chaos.history import Event

__all__ = ["MEMBERSHIP"]

_RANKS: Final = {"ALIVE": 0, "SUSPECT": 1, "DEAD": 2, "LEFT": 3}


def _only_grows(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    """A record is the largest of all that were heard: in one run of a node it never falls, unless it was pruned."""
    found: list[Finding] = []
    held: dict[tuple[str, str], tuple[int, int, int]] = {}
    for at, event in enumerate(events):
        if event.f in ("start", "known"):
            for key in [key for key in held if key[0] == event.node]:
                del held[key]
        elif event.f == "pruned":
            held.pop((event.node, event.value["about"]), None)
        elif event.f == "member" and "version" in event.value:
            key = (event.node, event.value["about"])
            order = (event.value["generation"], event.value["version"], _RANKS[event.value["state"]])
            if order < held.get(key, (-1, -1, -1)):
                found.append((at, f"{key[0]} took an older record of {key[1]}: {order} after {held[key]}"))
            held[key] = max(order, held.get(key, order))
    return found


def _in_the_end(events: Sequence[Event]) -> tuple[list[str], dict[tuple[str, str], str], int] | None:
    if not events or events[-1].f != "end":
        return None
    up = list(events[-1].value["nodes"])
    views: dict[tuple[str, str], str] = {}
    for event in events:
        if event.f == "member":
            views[(event.node, event.value["about"])] = event.value["state"]
        elif event.f in ("start", "known"):
            for key in [key for key in views if key[0] == event.node]:
                del views[key]
            for about in event.value.get("known", ()):
                views[(event.node, about)] = "ALIVE"
    return up, views, events[-1].t


def _converged(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    end = _in_the_end(events)
    if end is None:
        return []
    up, views, _ = end
    return [
        (len(events) - 1, f"in the end {node} holds {other} {views.get((node, other), 'unknown')}")
        for node in up
        for other in up
        if node != other and views.get((node, other)) != "ALIVE"
    ]


def _complete(events: Sequence[Event], bounds: Bounds) -> list[Finding]:
    end = _in_the_end(events)
    if end is None:
        return []
    up, views, now = end
    down: dict[str, int] = {}
    for event in events:
        if event.f in ("crash", "leave"):
            down[event.node] = event.t
        elif event.f == "start":
            down.pop(event.node, None)
    return [
        (len(events) - 1, f"{node} still holds {other} {views[(node, other)]}, which went down at {since} ms")
        for other, since in down.items()
        if now - since >= bounds.down_ms
        for node in up
        if views.get((node, other), "DEAD") not in ("DEAD", "LEFT")
    ]


def _accurate(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    touched = {node for event in events if event.f == "fault" for node in event.value["nodes"]}
    return [
        (at, f"{event.node} held {event.value['about']} DEAD, and no fault has touched either")
        for at, event in enumerate(events)
        if event.f == "member"
        and event.value["state"] == "DEAD"
        and event.value["about"] not in touched
        and event.node not in touched
    ]


def _dwelt(events: Sequence[Event], bounds: Bounds) -> list[Finding]:
    found: list[Finding] = []
    since: dict[tuple[str, str], tuple[str, int]] = {}
    least = {"SUSPECT": bounds.suspect_dwell_ms, "DEAD": bounds.dead_dwell_ms}
    for at, event in enumerate(events):
        if event.f in ("start", "known"):
            for key in [key for key in since if key[0] == event.node]:
                del since[key]
        if event.f != "member":
            continue
        key = (event.node, event.value["about"])
        shown = event.value["shown"]
        was, when = since.get(key, (shown, event.t))
        # Clocks of nodes may run at other rates than the history's.
        if shown == "ALIVE" and was in least and (event.t - when) * 100 < least[was] * _percent(event):
            found.append((at, f"{event.node} took {key[1]} back from {was} after {event.t - when} ms"))
        if key not in since or shown != was:
            since[key] = (shown, event.t)
    return found


def _percent(event: Event) -> int:
    """Return how much of a dwell time must have passed on the history's clock, in percent."""
    return int(event.value.get("percent", 99))


def _bounded(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    return [
        (at, f"{event.node} holds {size} {name}, {most} are the most")
        for at, event in enumerate(events)
        if event.f == "sizes"
        for name, (size, most) in event.value.items()
        if size > most
    ]


def _secure(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    return [
        (at, f"{event.node} believed a packet that was {event.value['how']}")
        for at, event in enumerate(events)
        if event.f == "intrusion"
    ]


MEMBERSHIP: Final[dict[str, Check]] = {
    "I6": _only_grows,
    "I7": _converged,
    "I8": _complete,
    "I9": _accurate,
    "I10": _dwelt,
    "I11": _bounded,
    "I13": _secure,
}
