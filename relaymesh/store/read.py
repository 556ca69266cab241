"""What people and programs ask about tasks: rows turned into views. Reads only; every answer has a bounded size."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from relaymesh.errors import InputError
from relaymesh.store.payload import ReadText, log_place
from relaymesh.store.result import result_map
from relaymesh.view import (
    LogEntry,
    TaskView,
    WorkflowDetail,
    WorkflowStep,
    WorkflowTask,
)

__all__ = [
    "ResultTooLargeError",
    "log_attempts",
    "log_entries",
    "log_keys",
    "task_status",
    "task_view",
    "workflow_detail",
]

RESULT_BYTES_MAX = 67_108_864

LogKey = tuple[int, str, int, int]
"""``(at_ms, step id, lease epoch, line)``"""


class ResultTooLargeError(InputError):
    """All outputs of a task together are more than one answer may hold."""

    code = "result_too_large"

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"the outputs of task {self.task_id} together exceed {RESULT_BYTES_MAX:,} bytes: "
            "read them step by step with the Python API (client.outputs)"
        )


def task_view(conn: sqlite3.Connection, task_id: str, read_text: ReadText) -> TaskView | None:
    """Return one task with its result, or None.

    Raises:
        ResultTooLargeError: the result is larger than an answer may be.
    """
    row = conn.execute(
        "SELECT status, idempotency_key, trace_id, result_payload, last_error, created_at_ms, updated_at_ms FROM tasks"
        " WHERE task_id=?",
        (task_id,),
    ).fetchone()
    if row is None:
        return None
    status, key, trace_id, result, error, created, updated = row
    if result is None and status == "SUCCESS":
        result = _result(conn, task_id, read_text)
    return TaskView(
        task_id=task_id,
        status=status,
        idempotency_key=key or "",
        trace_id=trace_id or "",
        result_payload=result,
        last_error=error,
        created_at_ms=created,
        updated_at_ms=updated,
    )


def _result(conn: sqlite3.Connection, task_id: str, read_text: ReadText) -> str:
    """Put a task's result together from its steps: it was too long to be stored a second time."""
    outputs: list[tuple[str, str | None]] = []
    room = RESULT_BYTES_MAX
    for step_id, text, path in conn.execute(
        "SELECT step_id, result_payload, result_path FROM steps WHERE task_id=? ORDER BY step_id", (task_id,)
    ):
        output = read_text("output", step_id, text, path)
        room -= len(output or "")
        if room < 0:
            raise ResultTooLargeError(task_id)
        outputs.append((step_id, output))
    return result_map(outputs)


def task_status(conn: sqlite3.Connection, task_id: str) -> str | None:
    """Return a task's status, or None when there is no such task."""
    row = conn.execute("SELECT status FROM tasks WHERE task_id=?", (task_id,)).fetchone()
    return None if row is None else str(row[0])


def workflow_detail(conn: sqlite3.Connection, task_id: str) -> WorkflowDetail | None:
    """Return a task with all its steps, or None."""
    task = conn.execute(
        "SELECT status, trace_id, created_at_ms, updated_at_ms FROM tasks WHERE task_id=?", (task_id,)
    ).fetchone()
    if task is None:
        return None
    dependencies: dict[str, list[str]] = {}
    for step_id, other in conn.execute(
        "SELECT step_id, depends_on_step_id FROM step_dependencies WHERE task_id=? AND namespace="
        "(SELECT namespace FROM tasks WHERE task_id=?) ORDER BY step_id, depends_on_step_id",
        (task_id, task_id),
    ):
        dependencies.setdefault(step_id, []).append(other)
    steps = tuple(
        WorkflowStep(
            step_id=row[0],
            agent_id=row[1],
            status=row[2],
            attempt=row[3],
            priority=row[4],
            enqueued=bool(row[5]),
            depends_on=tuple(dependencies.get(row[0], ())),
            created_at_ms=row[6],
            updated_at_ms=row[7],
        )
        for row in conn.execute(
            "SELECT step_id, agent_id, status, attempt, priority, is_enqueued, created_at_ms, updated_at_ms"
            " FROM steps WHERE task_id=? ORDER BY step_id",
            (task_id,),
        )
    )
    head = WorkflowTask(
        task_id=task_id, status=task[0], trace_id=task[1] or "", created_at_ms=task[2], updated_at_ms=task[3]
    )
    return WorkflowDetail(task=head, steps=steps)


def outputs(
    conn: sqlite3.Connection, task_id: str, read_text: ReadText
) -> Any:  # an iterator of (step id, output text or None)
    """Yield each step's output, one at a time, ordered by step id."""
    for step_id, text, path in conn.execute(
        "SELECT step_id, result_payload, result_path FROM steps WHERE task_id=? ORDER BY step_id", (task_id,)
    ):
        yield step_id, read_text("output", step_id, text, path)


def log_attempts(conn: sqlite3.Connection, task_id: str) -> set[tuple[str, int]]:
    """Return ``(step id, lease epoch)`` of the attempts of a task that have log lines: all of them or none yet."""
    return set(
        conn.execute(
            "SELECT l.step_id, l.lease_epoch FROM steps s JOIN attempt_logs l ON l.step_id=s.step_id"
            " WHERE s.task_id=? AND l.line=0",
            (task_id,),
        )
    )


def log_keys(conn: sqlite3.Connection, attempts: Iterable[tuple[str, int]]) -> list[LogKey]:
    """Return the keys of all lines of these attempts, oldest first."""
    return conn.execute(
        "SELECT l.at_ms, l.step_id, l.lease_epoch, l.line FROM json_each(?) w"
        " JOIN attempt_logs l"
        " ON l.step_id=json_extract(w.value, '$[0]') AND l.lease_epoch=json_extract(w.value, '$[1]')"
        " ORDER BY l.at_ms, l.step_id, l.lease_epoch, l.line",
        (_json_of(list(attempts)),),
    ).fetchall()


def log_entries(conn: sqlite3.Connection, keys: Sequence[LogKey], read_text: ReadText) -> list[LogEntry]:
    """Return the lines of these keys, in their order."""
    rows = conn.execute(
        "SELECT l.step_id, l.attempt, l.at_ms, l.level, l.text, l.lease_epoch, l.line FROM json_each(?) w"
        " JOIN attempt_logs l"
        " ON l.step_id=json_extract(w.value, '$[1]') AND l.lease_epoch=json_extract(w.value, '$[2]')"
        " AND l.line=json_extract(w.value, '$[3]') ORDER BY w.key",
        (_json_of(keys),),
    )
    return [
        LogEntry(
            step_id=step_id,
            attempt=attempt,
            at_ms=at_ms,
            level=level,
            text=read_text("log", log_place(step_id, epoch, line), text, None) or "",
        )
        for step_id, attempt, at_ms, level, text, epoch, line in rows
    ]


def _json_of(keys: object) -> str:
    import json  # here: `relaymesh task` does not need it

    return json.dumps(keys)
