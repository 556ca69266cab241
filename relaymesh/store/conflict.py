"""Record that a write about a step came from somebody who does not own it any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from relaymesh.store.counter import count_conflict
from relaymesh.wire.store import LeaseRef

__all__ = ["Conflict", "conflicts_at", "record_conflict", "record_conflicts"]

_ROWS_MAX = 10_000
_INSERT = (
    "INSERT INTO lease_conflicts(event_type, task_id, step_id, worker_id, expected_status, expected_lease_token,"
    " expected_lease_epoch, actual_status, actual_lease_owner, actual_lease_token, actual_lease_epoch, occurred_at_ms)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)


class Conflict(NamedTuple):
    """One row of the table of conflicts: who was refused, and what the step is instead."""

    event_type: str
    task_id: str | None
    step_id: str | None
    worker_id: str | None
    expected_epoch: int | None
    actual_status: str | None
    actual_owner: str | None
    actual_epoch: int | None


def record_conflict(
    conn: sqlite3.Connection,
    event_type: str,
    *,
    row_id: int,
    step_id: str | None,
    task_id: str | None,
    worker_id: str,
    token: str | None,
    lease_epoch: int | None,
    now_ms: int,
    expected_status: str = "RUNNING",
) -> None:
    """Write one row of ``lease_conflicts``: what the writer believed, and what the row says."""
    actual = conn.execute(
        "SELECT status, lease_owner, lease_token, lease_epoch, step_id, task_id FROM steps WHERE id=?", (row_id,)
    ).fetchone() or (None, None, None, None, step_id, task_id)
    conn.execute(
        _INSERT,
        (event_type, actual[5], actual[4], worker_id, expected_status, token, lease_epoch, *actual[:4], now_ms),
    )
    count_conflict(conn, event_type)


def conflicts_at(conn: sqlite3.Connection, now_ms: int) -> list[Conflict]:
    """Return the conflicts that were recorded at this instant, which is that of a transaction of the caller's."""
    rows = conn.execute(
        "SELECT event_type, task_id, step_id, worker_id, expected_lease_epoch, actual_status,"
        " actual_lease_owner, actual_lease_epoch"
        " FROM lease_conflicts WHERE occurred_at_ms=? ORDER BY id LIMIT ?",
        (now_ms, _ROWS_MAX),
    ).fetchall()
    return [Conflict(*row) for row in rows]


def record_conflicts(
    conn: sqlite3.Connection, event_type: str, leases: Sequence[LeaseRef], *, worker_id: str, now_ms: int
) -> None:
    """Write one conflict for each lease that was refused."""
    for lease in leases:
        record_conflict(
            conn,
            event_type,
            row_id=lease.row_id,
            step_id=lease.step_id,
            task_id=lease.task_id,
            worker_id=worker_id,
            token=lease.lease_token,
            lease_epoch=lease.lease_epoch,
            now_ms=now_ms,
        )
