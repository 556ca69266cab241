"""The raw SQLite loop: what the same disk and the same SQLite give to a program that does nothing but write.

    per batch:  BEGIN  insert tasks and steps   COMMIT
                BEGIN  claim the oldest ready   COMMIT
                BEGIN  complete steps and tasks COMMIT

One connection, one thread, no agent, no answer to anybody. It keeps what no queue can do without: unique task and step
ids, a unique idempotency key, an index of what is ready, a lease token that is checked when a step is completed.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from enum import Enum
from pathlib import Path

from relaymesh.client import default_key

__all__ = ["BATCH", "RawLoop", "Rows", "connect"]

BATCH = 500

_SCHEMA = """
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    idempotency_key TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    result TEXT
);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY,
    step_id TEXT NOT NULL UNIQUE,
    task_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    priority TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    payload TEXT,
    result TEXT,
    lease_owner TEXT,
    lease_token TEXT,
    lease_epoch INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
);
CREATE INDEX steps_ready ON steps(priority, id) WHERE status='PENDING';
"""
_INSERT_TASK = (
    "INSERT INTO tasks(task_id, idempotency_key, status, created_at_ms, updated_at_ms) VALUES (?,?,'PENDING',?,?)"
)
_INSERT_STEP = (
    "INSERT INTO steps(step_id, task_id, agent_id, priority, status, payload, created_at_ms, updated_at_ms)"
    " VALUES (?,?,'echo','NORMAL','PENDING',?,?,?)"
)
_CLAIM = (
    "UPDATE steps SET status='RUNNING', attempt=attempt+1, lease_owner='raw', lease_token=?||id,"
    " lease_epoch=lease_epoch+1, updated_at_ms=? WHERE id IN"
    " (SELECT id FROM steps INDEXED BY steps_ready WHERE status='PENDING' ORDER BY priority, id LIMIT ?)"
    " RETURNING id, task_id, payload, lease_token"
)
_COMPLETE_STEP = (
    "UPDATE steps SET status='SUCCESS', result=?, lease_owner=NULL, lease_token=NULL, updated_at_ms=?"
    " WHERE id=? AND status='RUNNING' AND lease_token=?"
)
_COMPLETE_TASK = "UPDATE tasks SET status='SUCCESS', result=?, updated_at_ms=? WHERE task_id=?"


def connect(path: Path, durability: str) -> sqlite3.Connection:
    """Open a database in WAL at the given durability, in autocommit mode."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
    return conn


class Rows(Enum):
    """What the rows hold. PLAIN: keys in order, results as short as payloads. LIKE_OURS: what a root holds after the
    same tasks, which is hashes as keys, and results as long as those of the built-in echo."""

    PLAIN = "plain"
    LIKE_OURS = "like ours"


# The built-in echo puts out a JSON object around its payload, and the task's result is a JSON object around that.
_RESULT_CHARS_MORE = 340


class RawLoop:
    """One database of its own; runs batches over it."""

    def __init__(self, path: Path, durability: str, rows: Rows = Rows.PLAIN) -> None:
        self._rows = rows
        self._conn = connect(path, durability)
        self._conn.executescript(_SCHEMA)
        self._numbers = itertools.count()

    def close(self) -> None:
        """Close the database."""
        self._conn.close()

    def run(self, tasks: int, batch: int = BATCH) -> float:
        """Bring so many tasks to their end; return the seconds that took."""
        started = time.perf_counter()
        while tasks > 0:
            self._insert(min(batch, tasks))
            self._complete(self._claim(min(batch, tasks)))
            tasks -= batch
        return time.perf_counter() - started

    def _insert(self, count: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        numbers = list(itertools.islice(self._numbers, count))
        self._conn.execute("BEGIN IMMEDIATE")
        self._conn.executemany(_INSERT_TASK, [(f"tsk_{n:036x}", self._key(n), now_ms, now_ms) for n in numbers])
        self._conn.executemany(
            _INSERT_STEP, [(f"stp_{n:036x}", f"tsk_{n:036x}", f"payload {n}", now_ms, now_ms) for n in numbers]
        )
        self._conn.execute("COMMIT")

    def _claim(self, count: int) -> list[tuple[int, str, str, str]]:
        now_ms = time.time_ns() // 1_000_000
        self._conn.execute("BEGIN IMMEDIATE")
        rows = self._conn.execute(_CLAIM, (f"lease {now_ms} ", now_ms, count)).fetchall()
        self._conn.execute("COMMIT")
        assert len(rows) == count, "the loop is alone on its database"
        return rows

    def _complete(self, rows: list[tuple[int, str, str, str]]) -> None:
        now_ms = time.time_ns() // 1_000_000
        done = [(self._result(payload), now_ms, row_id, token) for row_id, _, payload, token in rows]
        self._conn.execute("BEGIN IMMEDIATE")
        self._conn.executemany(_COMPLETE_STEP, done)
        self._conn.executemany(
            _COMPLETE_TASK, [(result, now_ms, row[1]) for row, (result, *_) in zip(rows, done, strict=True)]
        )
        self._conn.execute("COMMIT")

    def _key(self, number: int) -> str:
        return f"{number:064x}" if self._rows is Rows.PLAIN else default_key("echo", f"payload {number}")

    def _result(self, payload: str) -> str:
        return payload if self._rows is Rows.PLAIN else payload + " " * _RESULT_CHARS_MORE
