"""Which ticks of a schedule are to be made, given its last one and now.

A schedule is a calendar (cron, interval or one instant) and three policies. A tick is an instant of the calendar. It is
decided about once, in order of time, and the newest instant that was decided about is the cursor:

        cursor                             now
    ──────┼────t────t────t────t────t────────┼────t────▶
           └ first        due       newest ┘   └ next

    missed     which of the due ticks are wanted     SKIP, LATEST, ALL      ``decide``
    overlap    what becomes of a wanted tick while the last run goes on     ``place``
    jitter     how much later than its tick a run may start                 ``jitter_ms_of``

A due tick is on time when no later one is due as well and it is at most ``ON_TIME_MS`` old; every other is missed. The
store holds each tick at most once, so a cursor that goes back with the clock repeats nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final, Protocol

__all__ = [
    "JITTER_MS_MAX",
    "MISSED_MAX",
    "ON_TIME_MS",
    "Calendar",
    "Decision",
    "Interval",
    "Missed",
    "Once",
    "Overlap",
    "Placed",
    "decide",
    "jitter_ms_of",
    "place",
    "ticks_between",
]

ON_TIME_MS: Final = 60_000
"""How late the newest due tick may be made without counting as missed."""

MISSED_MAX: Final = 100
"""The most missed ticks that a schedule makes up for; also bounds the work of a look after a long downtime."""

JITTER_MS_MAX: Final = 86_400_000


class Calendar(Protocol):
    """A set of instants, in ms since the epoch."""

    def after(self, at_ms: int) -> int | None:
        """Return the first tick that is later than ``at_ms``, or None when there is no more."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A tick every ``every_ms``, in step with ``anchor_ms``; before it as well, so that a clock which is set back to a
    time before the schedule was made does not silence it.
    """

    anchor_ms: int
    every_ms: int

    def after(self, at_ms: int) -> int | None:
        return self.anchor_ms + ((at_ms - self.anchor_ms) // self.every_ms + 1) * self.every_ms


@dataclass(frozen=True, slots=True)
class Once:
    """A single tick."""

    at_ms: int

    def after(self, at_ms: int) -> int | None:
        return self.at_ms if self.at_ms > at_ms else None


class Missed(StrEnum):
    """SKIP: what was missed is not made. LATEST: one run makes up for all. ALL: up to N, the newest ones."""

    SKIP = "skip"
    LATEST = "latest"
    ALL = "all"


class Overlap(StrEnum):
    """While the last run goes on. ALLOW: start beside it. SKIP: pass over. QUEUE: keep one tick until it ends."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


class Placed(StrEnum):
    """What becomes of a wanted tick."""

    SUBMITTED = "submitted"
    QUEUED = "queued"
    PASSED_OVER = "passed_over"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look came to.

    made: ticks that are wanted, oldest first. passed: first and last of the ticks that the missed policy passes over.
    cursor_ms: everything up to here is decided. next_ms: the tick after it; when it is due, the look was cut short.
    """

    made: tuple[int, ...]
    passed: tuple[int, int] | None
    cursor_ms: int
    next_ms: int | None


def decide(
    calendar: Calendar, *, cursor_ms: int, now_ms: int, missed: Missed, missed_max: int = 1, limit: int = MISSED_MAX
) -> Decision:
    """Decide about the ticks after the cursor up to now, at most ``limit`` of which are made in one look.

    A cursor behind now means that the clock was set back: it goes back with it. Costs a few dozen steps of the calendar
    for SKIP and LATEST, and a few for each tick made with ALL, however long nobody looked.
    """
    cursor_ms = min(cursor_ms, now_ms)
    first = calendar.after(cursor_ms)
    if first is None or first > now_ms:
        return Decision((), None, cursor_ms, first)
    newest = _last_tick(calendar, first, now_ms)
    if missed is Missed.ALL:
        wanted = _newest_ticks(calendar, first, newest, missed_max)
    elif missed is Missed.LATEST or now_ms - newest <= ON_TIME_MS:
        wanted = (newest,)
    else:
        wanted = ()
    made = wanted[:limit]
    cursor_ms = newest if len(made) == len(wanted) else made[-1] if made else cursor_ms
    passed = None
    if not wanted:
        passed = (first, newest)
    elif wanted[0] > first:
        passed = (first, _last_tick(calendar, first, wanted[0] - 1))
    return Decision(made, passed, cursor_ms, calendar.after(cursor_ms))


def place(overlap: Overlap, *, last_runs: bool, queued: bool) -> Placed:
    """Say what becomes of a wanted tick. last_runs: the last run has not ended. queued: a tick waits for its end."""
    if overlap is Overlap.ALLOW or not (last_runs or queued):
        return Placed.SUBMITTED
    if overlap is Overlap.QUEUE and not queued:
        return Placed.QUEUED
    return Placed.PASSED_OVER


def jitter_ms_of(schedule_id: str, tick_ms: int, jitter_ms: int) -> int:
    """Return how much later than its tick a run starts, 0 to ``jitter_ms``; the same for whoever asks."""
    if jitter_ms <= 0:
        return 0
    digest = blake2b(f"{schedule_id} {tick_ms}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (jitter_ms + 1)


def ticks_between(calendar: Calendar, from_ms: int, to_ms: int, limit: int) -> list[int]:
    """Return the first ``limit`` ticks from ``from_ms`` to ``to_ms``, both inclusive."""
    ticks: list[int] = []
    tick = calendar.after(from_ms - 1)
    while tick is not None and tick <= to_ms and len(ticks) < limit:
        ticks.append(tick)
        tick = calendar.after(tick)
    return ticks


def _last_tick(calendar: Calendar, known: int, until_ms: int) -> int:
    """Return the last tick up to ``until_ms``; ``known`` is one. Halves the span with each step of the calendar."""
    low, high = known, until_ms
    following = calendar.after(low)
    if following is None or following > until_ms:
        return low
    low = following
    while low < high:
        middle = (low + high) // 2
        tick = calendar.after(middle)
        if tick is None or tick > until_ms:
            high = middle
        else:
            low = tick
    return low


def _newest_ticks(calendar: Calendar, first: int, newest: int, count: int) -> tuple[int, ...]:
    """Return the last ``count`` ticks from ``first`` to ``newest``, oldest first, walking back by the gap just seen."""
    ticks = [newest]
    width = ON_TIME_MS
    while len(ticks) < count and ticks[-1] > first:
        until_ms = ticks[-1] - 1
        low = max(first, until_ms - width)
        tick = calendar.after(low - 1)
        while tick is None or tick > until_ms:
            width *= 2
            low = max(first, until_ms - width)
            tick = calendar.after(low - 1)
        ticks.append(_last_tick(calendar, tick, until_ms))
        width = ticks[-2] - ticks[-1]
    return tuple(reversed(ticks))
