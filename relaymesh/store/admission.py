"""The admission gate in the store: what the root carries, and which of these new tasks may come in.

All in the submit's own write transaction, so that no number of processes overshoots a bound together. Counts are taken
over the partial indexes of what waits and runs, and stop at the bound: history costs nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from relaymesh.core.admission import Bounds, Load, RefusalCode, Room, Window, judge, room
from relaymesh.store.bulk import id_list
from relaymesh.store.counter import SUBMIT_REJECTED, add_counter
from relaymesh.store.schema import KEYED_READY, PLAIN_READY
from relaymesh.store.unique import is_duplicate
from relaymesh.wire.store import NewTask

__all__ = ["Refusal", "admit", "give_back", "load_of", "reserve"]

_WINDOW = "submit_window"
_WAITING = f"SELECT count(*) FROM (SELECT 1 FROM steps INDEXED BY steps_ready WHERE {PLAIN_READY} LIMIT ?)"
_KEYED = f"SELECT count(*) FROM (SELECT 1 FROM steps INDEXED BY steps_keyed WHERE {KEYED_READY} LIMIT ?)"
_RUNNING = "SELECT count(*) FROM (SELECT 1 FROM steps INDEXED BY steps_running WHERE status='RUNNING' LIMIT ?)"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a task was not let in. rejected_total: refused submits of the root so far, this one included."""

    code: RefusalCode
    load: Load
    rejected_total: int


def load_of(conn: sqlite3.Connection, bounds: Bounds, now_ms: int) -> Load:
    """Return what the root carries, counted no further than the bounds need."""
    depth_max = None if bounds.queue_depth is None else bounds.queue_depth + 1
    running = _count(conn, _RUNNING, max(depth_max or 0, (bounds.running_steps or 0) + 1))
    depth = 0
    if depth_max is not None:
        depth = running
        for query in (_WAITING, _KEYED):
            depth += _count(conn, query, max(0, depth_max - depth))
    window = Window()
    if bounds.per_minute:
        row = conn.execute("SELECT state_value FROM cluster_state WHERE state_key=?", (_WINDOW,)).fetchone()
        if row is not None:
            minute, admitted = row[0].split()
            window = Window(int(minute), int(admitted))
    return Load(depth, running, window.at(now_ms))


def admit(conn: sqlite3.Connection, tasks: Sequence[NewTask], bounds: Bounds, *, now_ms: int) -> list[Refusal | None]:
    """Return for each task why it may not come in, or None; the caller holds the write transaction.

    Tasks whose key is held already pass: they are answered and store nothing. What passes is counted as admitted, so
    the caller stores it in the same transaction.
    """
    held = {
        key
        for (key,) in conn.execute(
            "SELECT idempotency_key FROM tasks WHERE key_live=1 AND idempotency_key IN"
            " (SELECT value FROM json_each(?))",
            (id_list(task.idempotency_key for task in tasks),),
        )
    }
    load = before = load_of(conn, bounds, now_ms)
    refusals: list[Refusal | None] = []
    total = None
    for task in tasks:
        code = None
        if task.idempotency_key not in held and not (task.unique and is_duplicate(conn, task, now_ms)):
            code = judge(bounds, load, len(task.steps))
            if code is None:
                held.add(task.idempotency_key)
                load = load.with_admitted(len(task.steps))
        if code is None:
            refusals.append(None)
            continue
        if total is None:
            row = conn.execute("SELECT value FROM counters WHERE name=?", (SUBMIT_REJECTED,)).fetchone()
            total = row[0] if row is not None else 0
        total += 1
        refusals.append(Refusal(code, load, total))
    refused = sum(refusal is not None for refusal in refusals)
    if refused:
        add_counter(conn, SUBMIT_REJECTED, refused)
    if bounds.per_minute and load.window != before.window:
        _write_window(conn, load.window, now_ms)
    return refusals


def reserve(conn: sqlite3.Connection, bounds: Bounds, most: int, *, now_ms: int) -> Room:
    """Count up to ``most`` steps as admitted in this minute, before they are stored; the caller holds the write
    transaction. Returns how many came in. What was not used is given back by ``give_back``.
    """
    load = load_of(conn, bounds, now_ms)
    found = room(bounds, load)
    granted = found.within(most)
    if granted:
        _write_window(conn, load.with_admitted(granted).window, now_ms)
    return Room(granted, found.code)


def give_back(conn: sqlite3.Connection, bounds: Bounds, steps: int, *, now_ms: int) -> None:
    """Take steps that were reserved, and are not stored, out of this minute's count; negative: add some."""
    window = load_of(conn, Bounds(per_minute=bounds.per_minute), now_ms).window
    _write_window(conn, Window(window.minute, max(0, window.admitted - steps)), now_ms)


def _write_window(conn: sqlite3.Connection, window: Window, now_ms: int) -> None:
    conn.execute(
        "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?,?,1,?)"
        " ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,"
        " updated_at_ms=excluded.updated_at_ms",
        (_WINDOW, f"{window.minute} {window.admitted}", now_ms),
    )


def _count(conn: sqlite3.Connection, query: str, limit: int) -> int:
    return int(conn.execute(query, (limit,)).fetchone()[0])
