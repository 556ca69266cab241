"""What an operator asks for: cancel, the cluster epoch, and old idempotency keys."""

from __future__ import annotations

import sqlite3
from enum import Enum

from relaymesh.store.bulk import id_list

__all__ = [
    "KEY_TTL_MS",
    "CancelMode",
    "Cancelled",
    "bump_epoch",
    "cancel",
    "cluster_epoch",
    "cluster_state",
    "forget_keys",
    "forget_keys_from",
    "let_go_of_key",
    "purging",
]


KEY_TTL_MS = 7 * 24 * 3_600_000
"""How long the idempotency key of an ended task is held, unless ``idempotencyKeyRetentionMs`` says otherwise."""


class CancelMode(Enum):
    """HARD also fences and stops what runs; SOFT lets it end."""

    HARD = "hard"
    SOFT = "soft"


class Cancelled:
    """What a cancel came to: a code of the reference, and how many rows it moved."""

    __slots__ = ("code", "message_rows", "step_rows")

    def __init__(self, code: str, step_rows: int = 0, message_rows: int = 0) -> None:
        self.code, self.step_rows, self.message_rows = code, step_rows, message_rows


def cancel(conn: sqlite3.Connection, task_id: str, *, mode: CancelMode, reason: str, now_ms: int) -> Cancelled:
    """Cancel a task that has not ended; the caller holds the write transaction."""
    row = conn.execute("SELECT status FROM tasks WHERE task_id=?", (task_id,)).fetchone()
    if row is None:
        return Cancelled("not_found")
    taken = conn.execute(
        "UPDATE tasks SET status='CANCELLED', last_error=?, result_payload=NULL, finished_at_ms=?,"
        " updated_at_ms=max(?, updated_at_ms+1) WHERE task_id=? AND status IN ('PENDING','RUNNING','RETRYING')",
        (reason, now_ms, now_ms, task_id),
    ).rowcount
    if not taken:
        return Cancelled(f"terminal_state:{row[0]}")
    # Counted before they move: a message is a dispatched step, or the failed attempt of one that waits for its retry.
    states = "'PENDING','RETRYING','ABANDONED','FAILED'" + (",'RUNNING'" if mode is CancelMode.HARD else "")
    (messages,) = conn.execute(
        f"SELECT count(*) FROM steps WHERE task_id=? AND status IN ({states}) AND waiting_on=0 AND delayed=0",
        (task_id,),
    ).fetchone()
    steps = conn.execute(
        "UPDATE steps SET status='CANCELLED', lease_owner=NULL, lease_token=NULL, next_retry_at_ms=NULL,"
        f" updated_at_ms=max(?, updated_at_ms+1) WHERE task_id=? AND status IN ({states})",
        (now_ms, task_id),
    ).rowcount
    return Cancelled("cancelled", steps, messages)


def purging(conn: sqlite3.Connection) -> str | None:
    """Return the task of which a purge has removed a part."""
    row = conn.execute("SELECT state_value FROM cluster_state WHERE state_key='purging'").fetchone()
    return None if row is None else str(row[0])


def cluster_epoch(conn: sqlite3.Connection) -> int:
    """Return the fencing counter of the root."""
    row = conn.execute("SELECT state_value FROM cluster_state WHERE state_key='cluster_epoch'").fetchone()
    return int(row[0])


def cluster_state(conn: sqlite3.Connection) -> tuple[str, int, int]:
    """Return the row of the fencing counter: value, version, and when it was changed."""
    row = conn.execute(
        "SELECT state_value, version, updated_at_ms FROM cluster_state WHERE state_key='cluster_epoch'"
    ).fetchone()
    return str(row[0]), int(row[1]), int(row[2])


def bump_epoch(conn: sqlite3.Connection, *, now_ms: int) -> tuple[int, int, int]:
    """Raise the fencing counter by one; return its new value, version, and time.

    Whatever is in flight fails its commit once, and is recovered when its lease runs out.
    """
    row = conn.execute(
        "UPDATE cluster_state SET state_value=CAST(CAST(state_value AS INTEGER)+1 AS TEXT), version=version+1,"
        " updated_at_ms=max(?, updated_at_ms+1) WHERE state_key='cluster_epoch'"
        " RETURNING state_value, version, updated_at_ms",
        (now_ms,),
    ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def let_go_of_key(conn: sqlite3.Connection, key: str | None, *, before_ms: int) -> bool:
    """Let go of one idempotency key if its task ended, and did not change since, ``before_ms``; return whether it was.

    The caller holds the write transaction.
    """
    return (
        conn.execute(
            "UPDATE tasks SET key_live=0 WHERE idempotency_key=? AND key_live=1 AND finished_at_ms<?"
            " AND updated_at_ms<?",
            (key, before_ms, before_ms),
        ).rowcount
        == 1
    )


def forget_keys(conn: sqlite3.Connection, *, before_ms: int, limit: int) -> int:
    """Let go of the idempotency keys of tasks that ended, and did not change since, ``before_ms``; return how many.

    Looks at no more than ``limit`` tasks, in the order of their last change and from where the last call stopped. So
    each is looked at once, however long the history is: an open one comes up again, because its end changes it.
    """
    return forget_keys_from(conn, before_ms=before_ms, limit=limit)[1]


def forget_keys_from(conn: sqlite3.Connection, *, before_ms: int, limit: int) -> tuple[int, int]:
    """As ``forget_keys``; return how many tasks were looked at, and how many keys let go."""
    row = conn.execute("SELECT state_value FROM cluster_state WHERE state_key='keys_forgotten'").fetchone()
    at_ms, after = (int(part) for part in row[0].split()) if row is not None else (0, 0)
    seen = conn.execute(
        "SELECT updated_at_ms, id, key_live AND finished_at_ms IS NOT NULL FROM tasks INDEXED BY tasks_updated"
        " WHERE (updated_at_ms, id)>(?,?) AND updated_at_ms<? ORDER BY updated_at_ms, id LIMIT ?",
        (at_ms, after, before_ms, limit),
    ).fetchall()
    if not seen:
        return 0, 0
    conn.execute(
        "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES ('keys_forgotten', ?, 1, ?)"
        " ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,"
        " updated_at_ms=excluded.updated_at_ms",
        (f"{seen[-1][0]} {seen[-1][1]}", before_ms),
    )
    forgotten = conn.execute(
        "UPDATE tasks SET key_live=0 WHERE id IN (SELECT value FROM json_each(?)) AND key_live=1",
        (id_list(task[1] for task in seen if task[2]),),
    ).rowcount
    return len(seen), forgotten
