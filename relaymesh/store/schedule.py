"""Schedules in the database: entered, looked at, paused, taken away. What is due is fired in ``schedule_fire``.

    ACTIVE ──paused──▶ PAUSED ──resumed──▶ ACTIVE ──(no tick left)──▶ ENDED
       └──(cannot be fired: its zone or workflow is not known here any more)──▶ PAUSED, with last_error

Every statement that changes a row says in which state it expects it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from relaymesh.core.cron import Cron
from relaymesh.core.nearest import did_you_mean, quoted
from relaymesh.core.schedule import Calendar, Interval, Missed, Once, Overlap
from relaymesh.errors import InputError
from relaymesh.store.schedule_budget import forget_schedule_budget
from relaymesh.store.zone import zone_of

__all__ = [
    "SCHEDULES_MAX",
    "STATES",
    "TICKS_KEPT",
    "ScheduleExistsError",
    "ScheduleLimitError",
    "ScheduleNotFoundError",
    "ScheduleRow",
    "delete_schedule",
    "insert_schedule",
    "list_schedules",
    "pause_schedule",
    "read_schedule",
    "recent_ticks",
    "resume_schedule",
]

STATES: Final = ("ACTIVE", "PAUSED", "ENDED")

SCHEDULES_MAX: Final = 10_000
"""Schedules of one root."""
TICKS_KEPT: Final = 10_000
"""Ticks of one schedule that are remembered, the newest: a week of one that ticks every minute."""


class ScheduleNotFoundError(InputError):
    """There is no schedule of this name. ``hint`` names the nearest one, or is empty."""

    code = "schedule_not_found"

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(name, hint)
        self.name, self.hint = name, hint

    def __str__(self) -> str:
        there_are = "(`relaymesh schedule list` shows what there is)"
        return f"there is no schedule {quoted(self.name)} here{self.hint} {there_are}"


class ScheduleExistsError(InputError):
    """Another schedule has this name."""

    code = "schedule_exists"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"there is a schedule {quoted(self.name)} already: choose another name, or delete that one first"
            f" (`relaymesh schedule delete {self.name}`)"
        )


class ScheduleLimitError(InputError):
    """The root has as many schedules as it may have."""

    code = "too_many_schedules"

    def __str__(self) -> str:
        return f"this root has {SCHEDULES_MAX:,} schedules, which is the most it may have: delete those that have ended"


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One row of ``schedules``, in the order of its columns.

    kind: ``cron``, ``interval`` or ``once``. agent_id: None when ``payload`` is the text of a workflow file.
    anchor_ms: from where an interval counts, or the instant of a one-off. labels: JSON, or None.
    payload: as the column holds it; ``PayloadFiles.text`` opens it, kind ``schedule``.
    """

    schedule_id: str
    name: str
    namespace: str
    state: str
    kind: str
    expression: str
    zone: str
    every_ms: int | None
    anchor_ms: int
    missed: str
    missed_max: int
    jitter_ms: int
    overlap: str
    agent_id: str | None
    payload: str | bytes
    priority: str | None
    labels: str | None
    cursor_ms: int
    next_tick_ms: int | None
    queued_tick_ms: int | None
    last_tick_ms: int | None
    last_task_id: str | None
    last_error: str | None
    known_from_ms: int
    made: int
    passed_over: int
    created_at_ms: int
    updated_at_ms: int

    def calendar(self) -> Calendar:
        """Return the instants of the schedule.

        Raises:
            UnknownZoneError: this machine does not know its zone.
            ValueError: somebody has written a row that no schedule can have.
        """
        match self.kind:
            case "cron":
                return Cron(self.expression, zone_of(self.zone))
            case "interval":
                if self.every_ms is None or self.every_ms < 1:
                    raise ValueError(f"an interval of {self.every_ms} ms")
                return Interval(self.anchor_ms, self.every_ms)
            case _:
                return Once(self.anchor_ms)

    @property
    def missed_policy(self) -> Missed:
        return Missed(self.missed)

    @property
    def overlap_policy(self) -> Overlap:
        return Overlap(self.overlap)

    def own_labels(self) -> Mapping[str, str]:
        """Return the labels that its tasks get beside the name and the tick."""
        labels: Mapping[str, str] = json.loads(self.labels) if self.labels else {}
        return labels


COLUMNS: Final = ", ".join(ScheduleRow.__slots__)


def insert_schedule(conn: sqlite3.Connection, row: ScheduleRow) -> None:
    """Enter a schedule.

    Raises:
        ScheduleExistsError, ScheduleLimitError: nothing was changed.
    """
    (count,) = conn.execute("SELECT count(*) FROM schedules").fetchone()
    if count >= SCHEDULES_MAX:
        raise ScheduleLimitError
    marks = ",".join("?" * len(ScheduleRow.__slots__))
    values = tuple(getattr(row, name) for name in ScheduleRow.__slots__)
    if not conn.execute(
        f"INSERT INTO schedules({COLUMNS}) VALUES ({marks}) ON CONFLICT(name) DO NOTHING", values
    ).rowcount:
        raise ScheduleExistsError(row.name)


def read_schedule(conn: sqlite3.Connection, name: str) -> ScheduleRow:
    """Return the schedule of this name.

    Raises:
        ScheduleNotFoundError
    """
    found = conn.execute(f"SELECT {COLUMNS} FROM schedules WHERE name=?", (name,)).fetchone()
    if found is None:
        names = [other for (other,) in conn.execute("SELECT name FROM schedules ORDER BY name LIMIT 2000")]
        raise ScheduleNotFoundError(name, did_you_mean(name, names))
    return ScheduleRow(*found)


def list_schedules(conn: sqlite3.Connection, *, state: str | None, limit: int, after: str = "") -> list[ScheduleRow]:
    """Return schedules by name, from behind ``after`` on."""
    rows = conn.execute(
        f"SELECT {COLUMNS} FROM schedules WHERE name>? AND (?2 IS NULL OR state=?2) ORDER BY name LIMIT ?3",
        (after, state, limit),
    )
    return [ScheduleRow(*row) for row in rows]


def recent_ticks(conn: sqlite3.Connection, schedule_id: str, limit: int) -> list[tuple[str, int, str, int]]:
    """Return the newest ticks that were made: ``(kind, tick_ms, task_id, made_at_ms)``."""
    found: list[tuple[str, int, str, int]] = []
    for kind in ("planned", "trigger"):
        found += conn.execute(
            "SELECT kind, tick_ms, task_id, made_at_ms FROM schedule_ticks WHERE schedule_id=? AND kind=?"
            " ORDER BY tick_ms DESC LIMIT ?",
            (schedule_id, kind, limit),
        ).fetchall()
    return sorted(found, key=lambda tick: (-tick[1], tick[0]))[:limit]


def pause_schedule(conn: sqlite3.Connection, name: str, *, error: str | None = None, now_ms: int) -> bool:
    """Let a schedule make no more ticks until it is resumed; return whether it was active."""
    changed = conn.execute(
        "UPDATE schedules SET state='PAUSED', last_error=?, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE name=? AND state='ACTIVE'",
        (error, now_ms, name),
    ).rowcount
    return changed == 1


def resume_schedule(conn: sqlite3.Connection, row: ScheduleRow, *, now_ms: int) -> bool:
    """Let a paused schedule go on from now; return whether it was paused. Ticks of the pause are not made."""
    next_ms = row.calendar().after(now_ms)
    state = "ACTIVE" if next_ms is not None or row.queued_tick_ms is not None else "ENDED"
    changed = conn.execute(
        "UPDATE schedules SET state=?, cursor_ms=?, next_tick_ms=?, last_error=NULL,"
        " updated_at_ms=max(?, updated_at_ms+1) WHERE schedule_id=? AND state='PAUSED'",
        (state, now_ms, next_ms, now_ms, row.schedule_id),
    ).rowcount
    return changed == 1


def delete_schedule(conn: sqlite3.Connection, row: ScheduleRow) -> bool:
    """Take a schedule away with the memory of its ticks; its tasks stay. Return whether it was there."""
    gone = conn.execute("DELETE FROM schedules WHERE schedule_id=?", (row.schedule_id,)).rowcount
    conn.execute("DELETE FROM schedule_ticks WHERE schedule_id=?", (row.schedule_id,))
    forget_schedule_budget(conn, row.schedule_id)
    return gone == 1
