"""Store new tasks, each once per idempotency key."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from relaymesh.store.bulk import write_rows
from relaymesh.wire.store import NewTask

__all__ = ["insert_tasks"]

_TASKS = (
    "INSERT INTO tasks(task_id, namespace, status, idempotency_key, key_live, principal_id, trace_id, created_at_ms,"
    " updated_at_ms, open_steps, expires_at_ms, labels, traceparent) VALUES {rows}"
    " ON CONFLICT(idempotency_key) WHERE key_live=1 DO NOTHING"
)
_STEPS = (
    "INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, payload_path, is_enqueued, status,"
    " created_at_ms, updated_at_ms, payload, shape, waiting_on, delayed, not_before_ms, queued_at_ms, template,"
    " map_template, traceparent) VALUES {rows}"
)
_DEPENDENCIES = (
    "INSERT OR IGNORE INTO step_dependencies(namespace, task_id, step_id, depends_on_step_id, created_at_ms)"
    " VALUES {rows}"
)


def insert_tasks(
    conn: sqlite3.Connection, tasks: Sequence[NewTask], *, namespace: str, now_ms: int
) -> list[tuple[str, bool]]:
    """Insert tasks with their steps; return ``(task_id, deduplicated)`` for each, in order.

    A task whose key is live names the task that holds it and stores nothing. The caller holds the write transaction.
    """
    rows = [_task_row(task, namespace, now_ms) for task in tasks]
    conn.execute("SAVEPOINT submit")
    if write_rows(conn, _TASKS, rows) == len(rows):
        fresh: Sequence[NewTask] = tasks
        results = [(task.task_id, False) for task in tasks]
    else:
        # Some key is taken, perhaps by an earlier task of this very batch: find out which, one at a time.
        conn.execute("ROLLBACK TO submit")
        fresh, results = _insert_one_by_one(conn, tasks, rows)
    write_rows(conn, _STEPS, [row for task in fresh for row in _step_rows(task, namespace, now_ms)])
    write_rows(
        conn,
        _DEPENDENCIES,
        [
            (namespace, task.task_id, step.step_id, other, now_ms)
            for task in fresh
            for step in task.steps
            for other in step.depends_on
        ],
    )
    conn.execute("RELEASE submit")
    return results


def _insert_one_by_one(
    conn: sqlite3.Connection, tasks: Sequence[NewTask], rows: Sequence[Sequence[object]]
) -> tuple[list[NewTask], list[tuple[str, bool]]]:
    fresh: list[NewTask] = []
    results: list[tuple[str, bool]] = []
    for task, row in zip(tasks, rows, strict=True):
        if write_rows(conn, _TASKS, [row]):
            fresh.append(task)
            results.append((task.task_id, False))
            continue
        (holder,) = conn.execute(
            "SELECT task_id FROM tasks WHERE idempotency_key=? AND key_live=1", (task.idempotency_key,)
        ).fetchone()
        results.append((holder, True))
    return fresh, results


def _task_row(task: NewTask, namespace: str, now_ms: int) -> tuple[object, ...]:
    return (
        task.task_id,
        namespace,
        "PENDING",
        task.idempotency_key,
        1,
        "principal:cli",
        task.trace_id,
        now_ms,
        now_ms,
        len(task.steps),
        task.expires_at_ms,
        task.labels,
        task.traceparent,
    )


def _step_rows(task: NewTask, namespace: str, now_ms: int) -> list[tuple[object, ...]]:
    return [
        (
            step.step_id,
            namespace,
            task.task_id,
            step.agent_id,
            step.priority,
            step.payload_path,
            # As the reference has it: roots of a workflow count as dispatched, the step of a single task does not.
            int(not step.waiting_on and not step.shape & 1),
            "PENDING",
            now_ms,
            now_ms,
            step.payload,
            step.shape,
            step.waiting_on,
            int(step.not_before_ms is not None),
            step.not_before_ms,
            now_ms,
            int(step.template),
            step.map_template,
            step.traceparent,
        )
        for step in task.steps
    ]
