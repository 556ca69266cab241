"""Invariants of membership and ownership, checked over a history.

I2  one outcome per (step, cluster epoch, lease epoch)        I3  epochs and generations never fall
I4  no commit below an epoch that its node knows of           I5  leases of one step do not overlap
I7  in the end all live nodes hold all live nodes ALIVE       I8  and all that are down DEAD or LEFT, in time
I9  no DEAD about a node that no fault touched                I10 no recovery before its dwell time
I15 a refused result is recorded, never silent
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from chaos.history import Event

__all__ = ["BROKEN_MAX", "INVARIANTS", "Bounds", "Broken", "check"]

BROKEN_MAX: Final = 100
"""Violations that are listed, per invariant."""


class Broken(NamedTuple):
    """One violation. event: index in the history."""

    invariant: str
    event: int
    what: str


class Bounds(NamedTuple):
    """suspect_dwell_ms, dead_dwell_ms: shortest stays in the state shown. down_ms: a node that has been down for so
    long must be known as gone. exclusive: whether leases must not overlap at all (quorum mode, one database).
    """

    suspect_dwell_ms: int = 5_000
    dead_dwell_ms: int = 30_000
    down_ms: int = 60_000
    exclusive: bool = True


def check(events: Sequence[Event], bounds: Bounds | None = None) -> list[Broken]:
    """Return what is broken, in the order of the invariants."""
    broken: list[Broken] = []
    for invariant in INVARIANTS:
        found = [Broken(invariant, at, what) for at, what in INVARIANTS[invariant](events, bounds or Bounds())]
        broken += found[:BROKEN_MAX]
    return broken


Finding = tuple[int, str]


def _epoch(event: Event) -> tuple[int, int]:
    return (event.value["ce"], event.value["le"])


def _one_outcome(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    found: list[Finding] = []
    outcomes: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    for at, event in enumerate(events):
        if event.f == "commit":
            key = (event.value["step"], *_epoch(event))
            outcome = (event.value["owner"], event.value["outcome"])
            if outcomes.setdefault(key, outcome) != outcome:
                found.append((at, f"step {key[0]} has two outcomes at epoch {key[1:]}: {outcomes[key]}, {outcome}"))
    return found


def _monotone(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    found: list[Finding] = []
    steps: dict[tuple[str, str], tuple[int, int]] = {}
    generations: dict[str, int] = {}
    epochs: dict[str, int] = {}
    for at, event in enumerate(events):
        if event.f in ("claim", "commit"):
            key = (event.node, event.value["step"])
            if _epoch(event) < steps.get(key, (-1, -1)):
                found.append((at, f"epoch of {key[1]} at {event.node} fell from {steps[key]} to {_epoch(event)}"))
            steps[key] = max(_epoch(event), steps.get(key, (-1, -1)))
        elif event.f == "start":
            generation = event.value["generation"]
            if generation <= generations.get(event.node, -1):
                found.append((at, f"{event.node} started again with generation {generation}"))
            generations[event.node] = generation
        elif event.f == "epoch":
            if event.value["ce"] < epochs.get(event.node, -1):
                found.append((at, f"cluster epoch at {event.node} fell to {event.value['ce']}"))
            epochs[event.node] = event.value["ce"]
    return found


def _fenced(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    found: list[Finding] = []
    known: dict[tuple[str, str], tuple[int, int]] = {}
    for at, event in enumerate(events):
        if event.f not in ("claim", "commit", "reject"):
            continue
        key = (event.node, event.value["step"])
        newest = known.get(key, (-1, -1))
        if event.f == "commit" and _epoch(event) < newest:
            found.append((at, f"{event.node} accepted a commit of {key[1]} at {_epoch(event)} after {newest}"))
        if event.f == "claim":
            known[key] = max(newest, _epoch(event))
    return found


def _exclusive(events: Sequence[Event], bounds: Bounds) -> list[Finding]:
    if not bounds.exclusive:
        return []
    found: list[Finding] = []
    held: dict[str, tuple[Any, tuple[int, int], int]] = {}
    for at, event in enumerate(events):
        if event.f not in ("claim", "heartbeat", "release", "commit"):
            continue
        step, owner = event.value["step"], event.value["owner"]
        holder = held.get(step)
        if event.f == "claim":
            if holder is not None and holder[2] > event.t and holder[0] != owner:
                found.append((at, f"{owner} claimed {step} while {holder[0]} held it until {holder[2]}"))
            held[step] = (owner, _epoch(event), event.value["until"])
        elif holder is not None and holder[:2] == (owner, _epoch(event)):
            if event.f == "heartbeat":
                if holder[2] <= event.t:
                    found.append((at, f"{owner} renewed {step} after its lease had ended"))
                held[step] = (owner, holder[1], event.value["until"])
            else:
                del held[step]
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
        if shown == "ALIVE" and was in least and (event.t - when) * 100 < least[was] * bounds_percent(event):
            found.append((at, f"{event.node} took {key[1]} back from {was} after {event.t - when} ms"))
        if key not in since or shown != was:
            since[key] = (shown, event.t)
    return found


def bounds_percent(event: Event) -> int:
    """Return how much of a dwell time must have passed on the history's clock, in percent."""
    return int(event.value.get("percent", 99))


def _visible(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    """Every claim but the last of a step ends in a commit, a release, a reject, or a claim by somebody else."""
    found: list[Finding] = []
    runs: dict[str, dict[tuple[Any, ...], int]] = defaultdict(dict)
    for at, event in enumerate(events):
        if event.f == "result":
            runs[event.value["step"]][(event.value["owner"], *_epoch(event))] = at
        elif event.f in ("commit", "reject", "release"):
            runs[event.value["step"]].pop((event.value["owner"], *_epoch(event)), None)
    for step, open_runs in runs.items():
        for run, at in open_runs.items():
            found.append((at, f"the result of {step} by {run[0]} at {run[1:]} was neither taken nor refused"))
    return found


INVARIANTS: Final[dict[str, Callable[[Sequence[Event], Bounds], list[Finding]]]] = {
    "I2": _one_outcome,
    "I3": _monotone,
    "I4": _fenced,
    "I5": _exclusive,
    "I7": _converged,
    "I8": _complete,
    "I9": _accurate,
    "I10": _dwelt,
    "I15": _visible,
}
