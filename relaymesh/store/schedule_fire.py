"""Fire schedules: the tick is remembered, its task stored and the cursor moved in one transaction.

    due ──▶ core: which ticks, what becomes of each ──▶ INSERT tick (unique) ──▶ submit ──▶ cursor, next tick

So whoever is first in the write lock makes a tick, everybody else finds it there, and a process that is killed leaves
either all of it or nothing. Nothing here can fail the transaction, which carries other work: a schedule that cannot be
fired is paused with the reason, or left for later when it is the keyring that is wrong.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from relaymesh.core.ident import Ids
from relaymesh.core.schedule import Overlap, Placed, decide, jitter_ms_of, place
from relaymesh.errors import InputError
from relaymesh.store.draft import draft_task, draft_workflow
from relaymesh.store.error import KeyringError, SealError
from relaymesh.store.payload import PayloadFiles
from relaymesh.store.schedule import COLUMNS, TICKS_KEPT, ScheduleRow, pause_schedule
from relaymesh.store.schedule_budget import schedule_budget
from relaymesh.wire.store import NewTask

__all__ = ["DUE_MAX", "LABELS", "TICKS_PER_LOOK", "Fired", "Press", "fire_due", "make_ticks", "tick_text", "trigger"]

DUE_MAX: Final = 64
"""Schedules that one look fires; the others are due still and come with the next."""
TICKS_PER_LOOK: Final = 100
"""Ticks that one look makes, for the same reason."""
LATER_MS: Final = 10_000
"""When a schedule is looked at again whose input cannot be opened as long as the keyring is not right."""
LABELS: Final = ("schedule", "tick")
"""The labels that say which tick a task is."""
_FORGET_EVERY: Final = 100

Submit = Callable[[Sequence[NewTask]], list[tuple[str, bool]]]


@dataclass(frozen=True, slots=True)
class Fired:
    """What became of a tick, or of several that were passed over together (``until_ms`` is then the last).

    result: ``submitted``, ``queued``, ``passed_over`` or ``failed``. reason: ``missed``, ``overlap`` or an error.
    """

    name: str
    result: Literal["submitted", "queued", "passed_over", "failed"]
    tick_ms: int
    until_ms: int | None = None
    reason: str = ""
    task: NewTask | None = None
    stored: tuple[str, bool] | None = None


@dataclass(frozen=True, slots=True)
class Press:
    """What makes tasks out of ticks; the caller holds the write transaction."""

    conn: sqlite3.Connection
    ids: Ids
    files: PayloadFiles
    submit: Submit
    now_ms: int


def tick_text(tick_ms: int) -> str:
    """Return an instant as RFC 3339, UTC."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=tick_ms)
    return at.isoformat(timespec="milliseconds" if tick_ms % 1000 else "seconds").replace("+00:00", "Z")


def fire_due(press: Press) -> list[Fired]:
    """Do what schedules have to do by now, at most ``DUE_MAX`` of them and ``TICKS_PER_LOOK`` ticks."""
    conn = press.conn
    columns = ", ".join(f"s.{column}" for column in ScheduleRow.__slots__)
    due = conn.execute(
        f"SELECT {COLUMNS} FROM schedules INDEXED BY schedules_due WHERE state='ACTIVE' AND next_tick_ms<=?"
        " ORDER BY next_tick_ms LIMIT ?",
        (press.now_ms, DUE_MAX),
    ).fetchall()
    freed = conn.execute(
        f"SELECT {columns} FROM schedules s INDEXED BY schedules_queued LEFT JOIN tasks t ON t.task_id=s.last_task_id"
        " WHERE s.queued_tick_ms IS NOT NULL AND s.state='ACTIVE' AND (t.task_id IS NULL OR t.finished_at_ms IS NOT"
        " NULL) LIMIT ?",
        (DUE_MAX,),
    ).fetchall()
    fired: list[Fired] = []
    room = TICKS_PER_LOOK
    for schedule in {row[0]: ScheduleRow(*row) for row in (*freed, *due)}.values():
        if room <= 0:
            break
        # A full disk is nobody's fault in here: it ends the transaction, and the tick is made when there is room.
        try:
            news = _Look(press, schedule).run(room)
        except (InputError, SealError, ValueError) as error:  # a ValueError is a row that somebody has written by hand
            if isinstance(error, KeyringError) and schedule.queued_tick_ms is None:
                _look_later(conn, schedule, press.now_ms)
                continue
            code = "bad_schedule" if isinstance(error, ValueError) else error.code
            pause_schedule(conn, schedule.name, error=f"{code}: {error}", now_ms=press.now_ms)
            news = [Fired(schedule.name, "failed", schedule.next_tick_ms or press.now_ms, reason=code)]
        fired += news
        room -= sum(tick.result == "submitted" for tick in news)
    return fired


def make_ticks(press: Press, schedule: ScheduleRow, ticks: Sequence[int]) -> list[Fired]:
    """Make ticks of the calendar whatever the policies say; those that were made before are left out."""
    return [tick for tick_ms in ticks for tick in _make(press, schedule, "planned", tick_ms)]


def trigger(press: Press, schedule: ScheduleRow) -> Fired:
    """Make a tick of now, beside those of the calendar. It counts as the last run."""
    conn, tick_ms = press.conn, press.now_ms
    (last,) = conn.execute(
        "SELECT max(tick_ms) FROM schedule_ticks WHERE schedule_id=? AND kind='trigger'", (schedule.schedule_id,)
    ).fetchone()
    (fired,) = _make(press, schedule, "trigger", tick_ms if last is None else max(tick_ms, last + 1))
    assert fired.stored is not None
    conn.execute(
        "UPDATE schedules SET last_task_id=?, made=made+1, updated_at_ms=max(?, updated_at_ms+1) WHERE schedule_id=?",
        (fired.stored[0], press.now_ms, schedule.schedule_id),
    )
    return fired


class _Look:
    """One schedule in one look."""

    def __init__(self, press: Press, schedule: ScheduleRow) -> None:
        self._press = press
        self._schedule = schedule
        self._queued_ms = schedule.queued_tick_ms
        self._last_tick_ms = schedule.last_tick_ms
        self._last_task_id = schedule.last_task_id
        self._runs = schedule.overlap_policy is not Overlap.ALLOW and self._last_runs()
        self._passed = 0
        self._fired: list[Fired] = []

    def run(self, room: int) -> list[Fired]:
        schedule, press = self._schedule, self._press
        # Before anything is written: what cannot be drafted fails before it has left half of itself.
        calendar, missed = schedule.calendar(), schedule.missed_policy
        _draft(press, schedule, "planned", press.now_ms)
        if self._queued_ms is not None and not self._runs:
            self._submit(self._queued_ms)
            self._queued_ms = None
        decision = decide(
            calendar,
            cursor_ms=schedule.cursor_ms,
            now_ms=press.now_ms,
            missed=missed,
            missed_max=schedule.missed_max,
            limit=max(1, room - len(self._fired)),
        )
        if decision.passed is not None:
            self._pass_over(*decision.passed, "missed")
        for tick_ms in decision.made:
            match place(schedule.overlap_policy, last_runs=self._runs, queued=self._queued_ms is not None):
                case Placed.SUBMITTED:
                    self._submit(tick_ms)
                case Placed.QUEUED:
                    self._queued_ms = tick_ms
                    self._fired.append(Fired(schedule.name, "queued", tick_ms))
                case Placed.PASSED_OVER:
                    self._pass_over(tick_ms, tick_ms, "overlap")
        self._move(decision.cursor_ms, decision.next_ms)
        return self._fired

    def _last_runs(self) -> bool:
        found = self._press.conn.execute(
            "SELECT finished_at_ms IS NULL FROM tasks WHERE task_id=?", (self._schedule.last_task_id,)
        ).fetchone()
        return found is not None and bool(found[0])

    def _submit(self, tick_ms: int) -> None:
        for fired in _make(self._press, self._schedule, "planned", tick_ms):
            assert fired.stored is not None
            self._fired.append(fired)
            self._last_tick_ms, self._last_task_id = tick_ms, fired.stored[0]
            self._runs = self._schedule.overlap_policy is not Overlap.ALLOW

    def _pass_over(self, from_ms: int, until_ms: int, reason: str) -> None:
        self._passed += 1
        until = until_ms if until_ms != from_ms else None
        self._fired.append(Fired(self._schedule.name, "passed_over", from_ms, until, reason))

    def _move(self, cursor_ms: int, next_ms: int | None) -> None:
        schedule, conn = self._schedule, self._press.conn
        made = sum(tick.result == "submitted" for tick in self._fired)
        state = "ACTIVE" if next_ms is not None or self._queued_ms is not None else "ENDED"
        conn.execute(
            "UPDATE schedules SET state=?, cursor_ms=?, next_tick_ms=?, queued_tick_ms=?, last_tick_ms=?,"
            " last_task_id=?, made=made+?, passed_over=passed_over+?, updated_at_ms=max(?, updated_at_ms+1)"
            " WHERE schedule_id=? AND state='ACTIVE' AND cursor_ms=?",
            (
                state,
                cursor_ms,
                next_ms,
                self._queued_ms,
                self._last_tick_ms,
                self._last_task_id,
                made,
                self._passed,
                self._press.now_ms,
                schedule.schedule_id,
                schedule.cursor_ms,
            ),
        )
        if made and schedule.made // _FORGET_EVERY != (schedule.made + made) // _FORGET_EVERY:
            _forget_old_ticks(conn, schedule.schedule_id)


def _make(press: Press, schedule: ScheduleRow, kind: str, tick_ms: int) -> list[Fired]:
    """Remember a tick and store its task; nothing when it is remembered already."""
    task = _draft(press, schedule, kind, tick_ms)
    if not press.conn.execute(
        "INSERT INTO schedule_ticks(schedule_id, kind, tick_ms, task_id, made_at_ms) VALUES (?,?,?,?,?)"
        " ON CONFLICT DO NOTHING",
        (schedule.schedule_id, kind, tick_ms, task.task_id, press.now_ms),
    ).rowcount:
        return []
    ((task_id, deduplicated),) = press.submit([task])
    if deduplicated:  # its memory was cut, its task is there: that one is the run
        press.conn.execute(
            "UPDATE schedule_ticks SET task_id=? WHERE schedule_id=? AND kind=? AND tick_ms=?",
            (task_id, schedule.schedule_id, kind, tick_ms),
        )
    return [Fired(schedule.name, "submitted", tick_ms, task=task, stored=(task_id, deduplicated))]


def _draft(press: Press, schedule: ScheduleRow, kind: str, tick_ms: int) -> NewTask:
    start_ms = tick_ms + jitter_ms_of(schedule.schedule_id, tick_ms, schedule.jitter_ms if kind == "planned" else 0)
    not_before_ms = start_ms if start_ms > press.now_ms else None
    labels = {**schedule.own_labels(), "schedule": schedule.name, "tick": tick_text(tick_ms)}
    key = f"schedule/{schedule.schedule_id}/{kind}/{tick_ms}"
    payload = press.files.text("schedule", schedule.schedule_id, schedule.payload, None) or ""
    budget = schedule_budget(press.conn, schedule.schedule_id)
    if schedule.agent_id is None:
        from relaymesh.core.workflow import parse

        plan = parse(payload, priority=schedule.priority)
        return draft_workflow(
            press.ids,
            press.files,
            plan,
            key=key,
            not_before_ms=not_before_ms,
            labels=labels,
            budget=tuple(sorted({**dict(plan.budget), **dict(budget)}.items())),
        )
    return draft_task(
        press.ids,
        press.files,
        schedule.agent_id,
        payload,
        priority=schedule.priority or "NORMAL",
        key=key,
        not_before_ms=not_before_ms,
        labels=labels,
        budget=budget,
    )


def _look_later(conn: sqlite3.Connection, schedule: ScheduleRow, now_ms: int) -> None:
    """Leave all ticks to be made when the keyring is back: where the schedule stands does not move."""
    conn.execute(
        "UPDATE schedules SET next_tick_ms=? WHERE schedule_id=? AND state='ACTIVE' AND cursor_ms=?",
        (now_ms + LATER_MS, schedule.schedule_id, schedule.cursor_ms),
    )


def _forget_old_ticks(conn: sqlite3.Connection, schedule_id: str) -> None:
    """Forget all but the newest ticks; what is older cannot be made any more, so that none is made twice."""
    for kind in ("planned", "trigger"):
        oldest = conn.execute(
            "SELECT tick_ms FROM schedule_ticks WHERE schedule_id=? AND kind=? ORDER BY tick_ms DESC LIMIT 1 OFFSET ?",
            (schedule_id, kind, TICKS_KEPT - 1),
        ).fetchone()
        if oldest is None:
            continue
        conn.execute(
            "DELETE FROM schedule_ticks WHERE schedule_id=? AND kind=? AND tick_ms<?", (schedule_id, kind, oldest[0])
        )
        if kind == "planned":
            conn.execute(
                "UPDATE schedules SET known_from_ms=max(known_from_ms, ?) WHERE schedule_id=?",
                (oldest[0], schedule_id),
            )
