"""What becomes due with time: delayed and retrying steps, and tasks whose expiry passes."""

from __future__ import annotations

import sqlite3

from relaymesh.store.bulk import id_list

__all__ = ["expire_tasks", "has_expired", "next_due_ms", "promote_due", "restart_waits"]


def next_due_ms(conn: sqlite3.Connection) -> int | None:
    """Return when the next delayed or retrying step is due, or None."""
    found = conn.execute(
        "SELECT (SELECT min(next_retry_at_ms) FROM steps INDEXED BY steps_retrying WHERE status='RETRYING'),"
        " (SELECT min(not_before_ms) FROM steps INDEXED BY steps_delayed WHERE status='PENDING' AND delayed=1)"
    ).fetchone()
    return min((int(at_ms) for at_ms in found if at_ms is not None), default=None)


def promote_due(conn: sqlite3.Connection, *, now_ms: int, limit: int) -> int:
    """Make steps ready whose time has come, earliest first; return how many."""
    retried = conn.execute(
        "UPDATE steps SET status='PENDING', next_retry_at_ms=NULL, queued_at_ms=?,"
        " updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE id IN (SELECT id FROM steps INDEXED BY steps_retrying WHERE status='RETRYING'"
        " AND next_retry_at_ms<=? ORDER BY next_retry_at_ms LIMIT ?) AND status='RETRYING'",
        (now_ms, now_ms, now_ms, limit),
    ).rowcount
    delayed = conn.execute(
        "UPDATE steps SET delayed=0, queued_at_ms=max(?, coalesce(not_before_ms, 0)),"
        " updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE id IN (SELECT id FROM steps INDEXED BY steps_delayed WHERE status='PENDING' AND delayed=1"
        " AND not_before_ms<=? ORDER BY not_before_ms LIMIT ?) AND status='PENDING' AND delayed=1",
        (now_ms, now_ms, now_ms, limit),
    ).rowcount
    return retried + delayed


def restart_waits(conn: sqlite3.Connection, *, now_ms: int) -> int:
    """Let backoffs begin anew that were set by a wall clock which was then set back; return how many.

    Without it a backoff of a second would last as long as the jump. A wait that was set after the jump is left alone.
    """
    return conn.execute(
        "UPDATE steps SET next_retry_at_ms=?+max(0, next_retry_at_ms-updated_at_ms), updated_at_ms=updated_at_ms+1"
        " WHERE status='RETRYING' AND updated_at_ms>?",
        (now_ms, now_ms),
    ).rowcount


def has_expired(conn: sqlite3.Connection, *, now_ms: int) -> bool:
    """Return whether some task's expiry has passed that has not been seen to."""
    found = conn.execute(
        "SELECT 1 FROM tasks INDEXED BY tasks_expiry WHERE expires_at_ms IS NOT NULL"
        " AND finished_at_ms IS NULL AND expires_at_ms<=? LIMIT 1",
        (now_ms,),
    )
    return found.fetchone() is not None


def expire_tasks(conn: sqlite3.Connection, *, now_ms: int, limit: int) -> list[str]:
    """Cancel what has not been started of tasks whose expiry has passed; return the tasks that changed."""
    tasks = [
        row[0]
        for row in conn.execute(
            "SELECT task_id FROM tasks INDEXED BY tasks_expiry WHERE expires_at_ms IS NOT NULL"
            " AND finished_at_ms IS NULL AND expires_at_ms<=? ORDER BY expires_at_ms LIMIT ?",
            (now_ms, limit),
        )
    ]
    if not tasks:
        return []
    ids = id_list(tasks)
    expired = {
        row[0]
        for row in conn.execute(
            "UPDATE steps SET status='CANCELLED', last_error='expired', next_retry_at_ms=NULL,"
            " updated_at_ms=max(?, updated_at_ms+1)"
            " WHERE task_id IN (SELECT value FROM json_each(?)) AND status IN ('PENDING','RETRYING')"
            " RETURNING task_id",
            (now_ms, ids),
        )
    }
    conn.execute(
        "UPDATE tasks SET status='CANCELLED', last_error='expired', finished_at_ms=?,"
        " updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE task_id IN (SELECT value FROM json_each(?)) AND status IN ('PENDING','RUNNING','RETRYING')",
        (now_ms, now_ms, id_list(expired)),
    )
    # What runs to its end now has no expiry left to look for.
    conn.execute(
        "UPDATE tasks SET expires_at_ms=NULL WHERE task_id IN (SELECT value FROM json_each(?))",
        (id_list(set(tasks) - expired),),
    )
    return sorted(expired)
