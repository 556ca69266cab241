"""Fill a store with history and with delayed tasks, quickly: by SQL, without waiting for the disk.

The rows are those of single-step tasks as the store itself leaves them, ids in order of time. In an empty store the
index of the keys, which are hashes, is taken away and made again at the end by its own statement: sorted at once it is
written once. All others grow at their end. Safe only because nobody needs the database when this fails half-way.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

__all__ = ["RESULT_CHARS", "fill"]

CHUNK = 50_000
RESULT_CHARS = 120
# Spread over thirty days, the newest an hour ago; delayed ones over the thirty days to come.
_DAYS_MS = 30 * 24 * 3_600_000
_HOUR_MS = 3_600_000

_NUMBERS = "WITH RECURSIVE number(n) AS (VALUES (:low) UNION ALL SELECT n+1 FROM number WHERE n+1<:high)"
_AT = ":oldest + n * :step_us / 1000"
_ID = f"printf('%08x-%04x-7%03x-8%03x-%012x', ({_AT})>>16, ({_AT})&65535, n>>24&4095, n>>12&4095, n)"
_KEY = "lower(hex(randomblob(32)))"
_TEXT = f"printf('%0{RESULT_CHARS}d', n)"

_FINISHED_TASKS = f"""{_NUMBERS}
INSERT INTO tasks(task_id, namespace, status, idempotency_key, key_live, principal_id, trace_id, created_at_ms,
    updated_at_ms, open_steps, finished_at_ms, result_payload, result_hash)
SELECT 'tsk_'||{_ID}, 'default', 'SUCCESS', {_KEY}, 1, 'principal:cli', printf('%032x', n+1), {_AT}, {_AT}+1, 0,
    {_AT}+1, {_TEXT}, {_KEY} FROM number"""
_FINISHED_STEPS = f"""{_NUMBERS}
INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, status, attempt, lease_epoch, created_at_ms,
    updated_at_ms, payload, result_payload, shape, queued_at_ms, started_at_ms, cluster_epoch, owner_generation,
    worker_id)
SELECT 'stp_'||{_ID}, 'default', 'tsk_'||{_ID}, 'echo', 'NORMAL', 'SUCCESS', 1, 1, {_AT}, {_AT}+1, 'payload '||n,
    {_TEXT}, 1, {_AT}, {_AT}, 1, 1, 'node-local' FROM number"""
_DELAYED_TASKS = f"""{_NUMBERS}
INSERT INTO tasks(task_id, namespace, status, idempotency_key, key_live, principal_id, trace_id, created_at_ms,
    updated_at_ms, open_steps)
SELECT 'tsk_'||{_ID}, 'default', 'PENDING', {_KEY}, 1, 'principal:cli', printf('%032x', n+1), {_AT}, {_AT}, 1
FROM number"""
_DELAYED_STEPS = f"""{_NUMBERS}
INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, status, created_at_ms, updated_at_ms, payload, shape,
    queued_at_ms, delayed, not_before_ms)
SELECT 'stp_'||{_ID}, 'default', 'tsk_'||{_ID}, 'echo', 'NORMAL', 'PENDING', {_AT}, {_AT}, 'payload '||n, 1, {_AT}, 1,
    {_AT} + {_DAYS_MS + 2 * _HOUR_MS} FROM number"""


def fill(database: Path, *, finished: int, delayed: int, now_ms: int, progress: Callable[[str], object]) -> None:
    """Add so many finished and so many delayed tasks to the database, whose tables are there already."""
    conn = sqlite3.connect(database, isolation_level=None)
    with contextlib.closing(conn):
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            "cache_size=-524288",
            "threads=2",
        ):
            conn.execute(f"PRAGMA {pragma}").fetchall()
        of_keys = _without_index_of_keys(conn)
        first = 0
        for name, count, statements in (
            ("finished", finished, (_FINISHED_TASKS, _FINISHED_STEPS)),
            ("delayed", delayed, (_DELAYED_TASKS, _DELAYED_STEPS)),
        ):
            for low in range(0, count, CHUNK):
                values = {
                    "low": first + low,
                    "high": first + min(low + CHUNK, count),
                    "oldest": now_ms - _DAYS_MS - _HOUR_MS,
                    "step_us": _DAYS_MS * 1000 // max(1, finished + delayed),
                }
                conn.execute("BEGIN")
                for statement in statements:
                    conn.execute(statement, values)
                conn.execute("COMMIT")
                progress(f"{name}: {min(low + CHUNK, count):,} of {count:,} tasks stored")
            first += count
        if of_keys is not None:
            conn.execute(of_keys)


def _without_index_of_keys(conn: sqlite3.Connection) -> str | None:
    """Drop the index of the idempotency keys; return the statement that makes it, None where there are rows already."""
    if conn.execute("SELECT 1 FROM tasks LIMIT 1").fetchone() is not None:
        return None
    (statement,) = conn.execute("SELECT sql FROM sqlite_master WHERE name='tasks_live_key'").fetchone()
    conn.execute("DROP INDEX tasks_live_key")
    return str(statement)
