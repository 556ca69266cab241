"""When schedules have something to do. Every look of a node asks this, so it loads nothing that only firing needs."""

from __future__ import annotations

import sqlite3

__all__ = ["has_queued_tick", "next_due_ms", "rewind"]


def next_due_ms(conn: sqlite3.Connection) -> int | None:
    """Return when a schedule has something to do next, 0 when a queued tick need not wait any longer, or None."""
    at_ms, freed = conn.execute(
        "SELECT (SELECT min(next_tick_ms) FROM schedules INDEXED BY schedules_due"
        "  WHERE state='ACTIVE' AND next_tick_ms IS NOT NULL),"
        " (SELECT 0 FROM schedules s INDEXED BY schedules_queued LEFT JOIN tasks t ON t.task_id=s.last_task_id"
        "  WHERE s.queued_tick_ms IS NOT NULL AND s.state='ACTIVE'"
        "  AND (t.task_id IS NULL OR t.finished_at_ms IS NOT NULL) LIMIT 1)"
    ).fetchone()
    found = freed if freed is not None else at_ms
    return None if found is None else int(found)


def has_queued_tick(conn: sqlite3.Connection) -> bool:
    """Return whether some tick waits for the end of the run before it."""
    return (
        conn.execute(
            "SELECT 1 FROM schedules INDEXED BY schedules_queued WHERE queued_tick_ms IS NOT NULL LIMIT 1"
        ).fetchone()
        is not None
    )


def rewind(conn: sqlite3.Connection, *, now_ms: int) -> int:
    """Look at once at schedules that were decided about under a clock which was then set back; return how many.

    Without it they would be silent for as long as the jump. Ticks that were made are remembered and not made again.
    """
    return conn.execute(
        "UPDATE schedules SET next_tick_ms=? WHERE state='ACTIVE' AND cursor_ms>? AND next_tick_ms>?",
        (now_ms, now_ms, now_ms),
    ).rowcount
