"""Events: news about the mesh as a whole, which travel over several hops.

    publish ──▶ to fanout targets, so many hops
    take    seen within the window, or our own ──▶ nothing
            new ──▶ acted on; hops left > 1 ──▶ the same bytes with one hop less, to fanout targets

An event is made once and never changed on its way: whoever passes it on seals the same bytes anew. It is known by its
origin, the origin's generation and a number, and taken once within the window. What is in it has to be harmless when
it comes again after the window: a heartbeat or an epoch that is not newer than what is known changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

from relaymesh.core.mesh.member import id_hash

__all__ = ["EVENT_BYTES_MAX", "HOPS_MAX", "Event", "EventId", "EventKind", "Flood", "Seen", "Taken", "hops", "targets"]

T = TypeVar("T")

HOPS_MAX: Final = 32
EVENT_BYTES_MAX: Final = 1_160
"""So long an event is at most: whoever passes it on adds its own id and address, and that still fits a datagram."""
_TRIM_GAP_MS_MIN: Final = 5_000
_TRIM_GAP_MS_MAX: Final = 30_000

EventId = tuple[int, int, int]
"""Hash of the origin's id, its generation, the number of the event."""


class EventKind(IntEnum):
    """What an event is about. A node passes on kinds that it does not know."""

    HEARTBEAT = 1


class Event(NamedTuple):
    """One event. origin, address, generation: who made it, and where it takes packets. kind: an ``EventKind``, or one
    that is not known here. body: as ``relaymesh.wire.mesh_event`` says for the kind.
    """

    origin: str
    address: str
    generation: int
    number: int
    kind: int
    body: bytes

    @property
    def id(self) -> EventId:
        return (id_hash(self.origin), self.generation, self.number)


class Taken(NamedTuple):
    """Whether an event is to be acted on, and how many hops it has left from here; 0 when it goes no further."""

    fresh: bool
    hops_left: int


def hops(wanted: int, *, members: int, fanout: int) -> int:
    """Return over how many hops an event goes. wanted: 0 lets the size of the mesh decide.

    ceil(log_fanout(members)) + 2, so that an event reaches all although targets are drawn at random.
    """
    if wanted > 0:
        return min(wanted, HOPS_MAX)
    if fanout < 2:
        return min(max(1, members), HOPS_MAX)
    reached, needed = 1, 0
    while reached < members:
        reached *= fanout
        needed += 1
    return min(needed + 2, HOPS_MAX)


def targets(rng: random.Random, known: Sequence[T], fanout: int, but: Collection[T] = ()) -> list[T]:
    """Return up to so many at random of those that are known, without some."""
    others = [one for one in dict.fromkeys(known) if one not in but]
    if len(others) <= fanout:
        return others
    for at in range(fanout):
        other = at + int(rng.random() * (len(others) - at))
        others[at], others[other] = others[other], others[at]
    return others[:fanout]


class Seen:
    """Which events were seen within the window.

    window_ms: an event is taken once in it. most: entries; twice as many are held until the next trim, which drops what
    has expired and, above ``most``, what expires first. A trim happens every 5 to 30 s, or when there are too many.
    """

    def __init__(self, window_ms: int, most: int) -> None:
        self.resize(window_ms, most)
        self._until: dict[EventId, int] = {}
        self._trim_at_ms = -1

    def __len__(self) -> int:
        return len(self._until)

    def resize(self, window_ms: int, most: int) -> None:
        """Go by other bounds for what is seen from now on."""
        self._window_ms = window_ms
        self._most = most
        self._gap_ms = max(_TRIM_GAP_MS_MIN, min(window_ms, _TRIM_GAP_MS_MAX))

    def take(self, now_ms: int, event_id: EventId) -> bool:
        """Note an event; return whether it is to be taken. now_ms: of one clock, whichever."""
        until = self._until.get(event_id)
        if until is not None and now_ms < until:
            return False
        self._until.pop(event_id, None)  # its place is behind the others again
        self._until[event_id] = now_ms + self._window_ms
        if self._trim_at_ms < 0:
            self._trim_at_ms = now_ms + self._gap_ms
        elif now_ms >= self._trim_at_ms or len(self._until) > 2 * self._most:
            self.trim(now_ms)
        return True

    def trim(self, now_ms: int) -> None:
        """Drop what has expired, and what is too much."""
        self._trim_at_ms = now_ms + self._gap_ms
        kept = [(until, event_id) for event_id, until in self._until.items() if now_ms < until]
        if len(kept) > self._most:
            kept = sorted(kept)[-self._most :]
        self._until = {event_id: until for until, event_id in kept}

    def entries(self) -> list[tuple[EventId, int]]:
        """Return all with the time at which they expire, to be kept for the next process."""
        return list(self._until.items())

    def restore(self, now_ms: int, entries: Iterable[tuple[EventId, int]]) -> None:
        """Take entries of an earlier process. None lasts longer than a window from now: the clock may have been set."""
        for event_id, until in sorted(entries, key=lambda entry: entry[1])[-self._most :]:
            if now_ms < until and event_id not in self._until:
                self._until[event_id] = min(until, now_ms + self._window_ms)


class Flood:
    """The events of one node: those that it makes, and those that pass through it.

    number: of its last event; it never goes back within a generation.
    """

    def __init__(self, origin: str, address: str, generation: int, seen: Seen, *, number: int = 0) -> None:
        self.seen = seen
        self.number = number
        self._origin = origin
        self._address = address
        self._generation = generation

    def publish(self, kind: EventKind, body: bytes) -> Event:
        """Make an event of this node."""
        self.number += 1
        return Event(self._origin, self._address, self._generation, self.number, int(kind), body)

    def take(self, now_ms: int, event: Event, hops_left: int) -> Taken:
        """Take an event that came with so many hops left, this one included."""
        if event.origin == self._origin or not self.seen.take(now_ms, event.id):
            return Taken(False, 0)
        return Taken(True, max(0, min(hops_left, HOPS_MAX) - 1))
