"""What is thought of a member whose heartbeats are all that is known of it: by silence alone, in wall time.

            silent > suspect_after             silent > dead_after
   ALIVE ───────────────────────▶ SUSPECT ───────────────────────▶ DEAD ──▶ pruned
     ▲ ▲                             │                              │        ▲
     │ └── heartbeat, after a dwell ─┘                              │        │
     ├──── heartbeat, after a longer dwell ─────────────────────────┘        │
     └──── heartbeat ──────────── LEFT ──────────────────────────────────────┘

One row of the member table is one member (``Row``). ``heard`` takes a heartbeat in, whoever it comes from: a node that
writes its own is held to the same dwell times. ``judged`` is the silence of the others. LEFT is what a node says about
itself when it ends in order; nobody can be silent after it.

Whoever stores a row does so only over the row that was looked at (guarded), so two nodes that judge at once agree.
A wall clock that is doubted (``relaymesh.core.clock_guard``) judges nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relaymesh.core.setting_table import Settings

__all__ = ["Heard", "Patience", "Row", "Status", "dwell_left_ms", "heard", "heartbeat_every_ms", "judged"]

_BEATS_MS_MIN, _BEATS_MS_MAX = 100, 5_000


class Status(StrEnum):
    """The word in the member table. A row may hold any other, written by hand: it counts as neither dead nor left."""

    ALIVE = "ALIVE"
    SUSPECT = "SUSPECT"
    DEAD = "DEAD"
    LEFT = "LEFT"


@dataclass(frozen=True, slots=True)
class Row:
    """A member, as the table has it. changed_ms: since when it has this status; updated_ms: last change of the row."""

    status: str
    heartbeat_ms: int
    updated_ms: int
    changed_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long silence lasts before it is a doubt and a verdict, and how long either stands at least."""

    suspect_after_ms: int = 30_000
    dead_after_ms: int = 60_000
    suspect_recover_min_ms: int = 5_000
    dead_recover_min_ms: int = 30_000

    @classmethod
    def of(cls, settings: Settings) -> Patience:
        """Return what the settings of a root ask for."""
        return cls(
            suspect_after_ms=settings.suspect_after_ms,
            dead_after_ms=settings.dead_after_ms,
            suspect_recover_min_ms=settings.suspect_recover_min_ms,
            dead_recover_min_ms=settings.dead_recover_min_ms,
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """What a heartbeat came to.

    row: what to store; None when the heartbeat is older than the one that is known, which changes nothing.
    suppressed: it would be ALIVE but for its dwell.
    """

    row: Row | None
    suppressed: bool = False


def heard(known: Row | None, heartbeat_ms: int, now_ms: int, patience: Patience) -> Heard:
    """Take a heartbeat in. heartbeat_ms: when the member sent it, or when it was received where nobody can say."""
    if known is None:
        return Heard(Row(Status.ALIVE, heartbeat_ms, now_ms, now_ms))
    if heartbeat_ms < known.heartbeat_ms:
        return Heard(None)
    kept = replace(known, heartbeat_ms=heartbeat_ms, updated_ms=now_ms)
    if known.status == Status.ALIVE:
        return Heard(kept)
    if dwell_left_ms(known, now_ms, patience) > 0:
        return Heard(kept, suppressed=True)
    return Heard(replace(kept, status=Status.ALIVE, changed_ms=now_ms))


def dwell_left_ms(known: Row, now_ms: int, patience: Patience) -> int:
    """Return for how long a member keeps its status at least, however often it is heard; 0 when not at all."""
    if known.status == Status.SUSPECT:
        dwell_ms = patience.suspect_recover_min_ms
    elif known.status == Status.DEAD:
        dwell_ms = patience.dead_recover_min_ms
    else:
        return 0
    # A change that lies in the future was written under another clock: no dwell lasts longer than it is long.
    return min(dwell_ms, max(0, known.changed_ms + dwell_ms - now_ms))


def judged(known: Row, now_ms: int, patience: Patience) -> Status | None:
    """Return the worse status that a member's silence comes to, or None."""
    if known.status in (Status.DEAD, Status.LEFT):
        return None
    silent_ms = now_ms - known.heartbeat_ms
    if silent_ms > patience.dead_after_ms:
        return Status.DEAD
    if silent_ms > patience.suspect_after_ms and known.status == Status.ALIVE:
        return Status.SUSPECT
    return None


def heartbeat_every_ms(patience: Patience) -> int:
    """Return how often a node writes its own heartbeat: thrice within the time after which it would be doubted."""
    return max(_BEATS_MS_MIN, min(_BEATS_MS_MAX, patience.suspect_after_ms // 3))
