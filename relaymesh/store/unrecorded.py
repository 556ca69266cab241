"""Tasks that are in the database and not in the audit log, because a node was killed between the two.

A node records what it stores some 25 ms after it answered (``actors/audit.py``). Its next start asks here what its
former self did not get to.
"""

from __future__ import annotations

import re
import sqlite3

from relaymesh.audit import AuditTrail
from relaymesh.audit.read import Filter, newest
from relaymesh.wire.audit import Record
from relaymesh.wire.store import SHAPE_SOLE

__all__ = ["TASKS_MAX", "unrecorded_submits"]

TASKS_MAX = 65_536
"""Tasks that are looked at, the newest first: as many as rows can have waited."""
_TASK = re.compile(r'"task_id":"([^"]*)"')


def unrecorded_submits(conn: sqlite3.Connection, trail: AuditTrail, *, since_ms: int, before_ms: int) -> list[Record]:
    """Return a record of each task that was made in this span of wall time and that no row of the log tells of.

    Who submitted it is not known any more: the actor is ``unknown``.

    Raises:
        OSError: the log cannot be read.
    """
    made = [
        (task_id, trace_id)
        for task_id, trace_id, at_ms in conn.execute(
            "SELECT task_id, trace_id, created_at_ms FROM tasks ORDER BY id DESC LIMIT ?", (TASKS_MAX,)
        )
        if since_ms <= at_ms < before_ms
    ]
    if not made:
        return []
    known: set[str] = set()
    for action in ("task.submit", "workflow.submit"):
        for row in newest(trail.place, Filter(action=action, from_ms=since_ms), 2 * TASKS_MAX):
            found = _TASK.search(row)
            if found is not None:
                known.add(found[1])
    return [_record(conn, task_id, trace_id) for task_id, trace_id in reversed(made) if task_id not in known]


def _record(conn: sqlite3.Connection, task_id: str, trace_id: str) -> Record:
    steps = conn.execute(
        "SELECT step_id, agent_id, priority, shape, waiting_on FROM steps WHERE task_id=? LIMIT 2", (task_id,)
    ).fetchall()
    if len(steps) == 1 and steps[0][3] == SHAPE_SOLE:
        ((step_id, agent, priority, _, _),) = steps
        details = {"agent": agent, "priority": priority, "msg_id": f"msg_{step_id}.1", "recorded": "late"}
        action = "task.submit"
    else:
        (count,) = conn.execute("SELECT count(*) FROM steps WHERE task_id=?", (task_id,)).fetchone()
        details, action = {"step_count": count, "recorded": "late"}, "workflow.submit"
    return Record(action, "unknown", f"task/{task_id}", "submitted", details, task_id, trace_id=trace_id or None)
