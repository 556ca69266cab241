"""Tasks that are unique beside their idempotency key: what a submit does about the one that is there already.

Look, decision, cancel and insert are in the submit's one write transaction, which is the guard: nobody else can store a
task with the key, or start the one that is to be replaced, in between. The rule is ``relaymesh.core.uniqueness``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from relaymesh.core.status import TaskStatus
from relaymesh.core.uniqueness import (
    Debounce,
    Holder,
    OnDuplicate,
    Outcome,
    Replace,
    Return,
    Unique,
    UniqueMode,
    judge,
)
from relaymesh.store.admin import CancelMode, cancel
from relaymesh.wire.store import NewTask

__all__ = ["is_duplicate", "submit_unique"]

_OPEN = """
SELECT task_id, status, created_at_ms, debounced_since_ms FROM tasks INDEXED BY tasks_unique_open
WHERE unique_key=? AND unique_key IS NOT NULL AND finished_at_ms IS NULL ORDER BY status='PENDING' DESC, id DESC LIMIT 1
"""
_NEWEST = """
SELECT task_id, status, created_at_ms, debounced_since_ms FROM tasks INDEXED BY tasks_unique
WHERE unique_key=? AND unique_key IS NOT NULL ORDER BY id DESC LIMIT 1
"""
_KEY_HELD = "SELECT task_id FROM tasks WHERE idempotency_key=? AND key_live=1"

Results = list[tuple[str, bool]]


def is_duplicate(conn: sqlite3.Connection, task: NewTask, now_ms: int) -> bool:
    """Say whether the submit of a unique task would store nothing."""
    held = conn.execute(_KEY_HELD, (task.idempotency_key,)).fetchone()
    return held is not None or isinstance(_judge(conn, task, now_ms), Return)


def submit_unique(
    conn: sqlite3.Connection,
    tasks: Sequence[NewTask],
    insert: Callable[[Sequence[NewTask]], Results],
    *,
    now_ms: int,
) -> Results:
    """Store tasks one after another, since each may stand in the way of the next; ``insert`` stores plain ones."""
    results: Results = []
    for task in tasks:
        if task.unique is None or conn.execute(_KEY_HELD, (task.idempotency_key,)).fetchone() is not None:
            results += insert([task])
            continue
        outcome, stored = _judge(conn, task, now_ms), task
        since_ms: int | None = None
        match outcome:
            case Return(task_id):
                results.append((task_id, True))
                continue
            case Replace(task_id):
                _cancel(conn, task_id, f"replaced by {task.task_id}", now_ms)
            case Debounce(task_id, not_before_ms, first_ms):
                since_ms = first_ms
                _cancel(conn, task_id, f"debounced by {task.task_id}", now_ms)
                stored = _starting_at(task, not_before_ms)
        results += insert([stored])
        conn.execute(
            "UPDATE tasks SET unique_key=?, debounced_since_ms=? WHERE task_id=?",
            (task.unique.key, since_ms, task.task_id),
        )
    return results


def _judge(conn: sqlite3.Connection, task: NewTask, now_ms: int) -> Outcome:
    assert task.unique is not None
    asked = task.unique
    unique = Unique(asked.key, UniqueMode(asked.mode), OnDuplicate(asked.on_duplicate), asked.period_ms, asked.delay_ms)
    query = _NEWEST if unique.mode is UniqueMode.PERIOD else _OPEN
    row = conn.execute(query, (unique.key,)).fetchone()
    holder = Holder(row[0], TaskStatus(row[1]), row[2], row[3]) if row is not None else None
    return judge(unique, holder, now_ms)


def _cancel(conn: sqlite3.Connection, task_id: str, reason: str, now_ms: int) -> None:
    cancelled = cancel(conn, task_id, mode=CancelMode.HARD, reason=reason, now_ms=now_ms)
    assert cancelled.code == "cancelled", "the write transaction keeps everybody else out"


def _starting_at(task: NewTask, at_ms: int) -> NewTask:
    steps = tuple(
        msgspec.structs.replace(step, not_before_ms=at_ms) if step.not_before_ms is not None else step
        for step in task.steps
    )
    return msgspec.structs.replace(task, steps=steps)
