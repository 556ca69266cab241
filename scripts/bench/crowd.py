"""crowd: what a million open and a million dead-lettered tasks cost those who look.

Each look is taken in a process of its own, which has nothing in memory of the database: the first call of a command and
the second one. Python's start and the import of modules are left out, for they do not depend on what is in the root
(``cli`` measures them): the same is asked of an empty root before. First on a root on which nobody has counted, then
after a node has, whose processor time for that is told too.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import backlog
from bench.figure import budget, rounded
from bench.node import BenchError
from bench.place import environment, new_root, python
from bench.setting import settings
from relaymesh.store.count_keeper import CountKeeper
from relaymesh.store.database import Database
from relaymesh.store.root import DATABASE

__all__ = ["run"]

ANSWER_MS_MAX = 150.0
CHUNK = 50_000
_LOOKS = ("stats", "health", "metrics", "status", "tasks")
_LOOK = """
import json, sys, time
from relaymesh.client import Client
root, empty, what = sys.argv[1:]

def look(client):
    return client.tasks(status="PENDING", limit=20) if what == "tasks" else getattr(client, what)()

with Client(empty) as client:
    look(client)
with Client(root) as client:
    took = []
    for _ in range(2):
        began = time.perf_counter()
        found = look(client)
        took.append((time.perf_counter() - began) * 1000)
age, least = (found.counts_age_ms, found.counts_at_least) if what == "stats" else (None, None)
print(json.dumps({"first_ms": took[0], "second_ms": took[1], "counts_age_ms": age, "counts_at_least": least}))
"""
_TASKS = """
WITH RECURSIVE number(n) AS (VALUES (:low) UNION ALL SELECT n+1 FROM number WHERE n+1<:high)
INSERT INTO tasks(task_id, status, idempotency_key, key_live, created_at_ms, updated_at_ms, open_steps, finished_at_ms)
SELECT printf('tsk_%s%09d', :name, n), :status, lower(hex(randomblob(16))), 1, :at+n, :at+n, :open,
    CASE WHEN :open=0 THEN :at+n END FROM number
"""
_STEPS = """
WITH RECURSIVE number(n) AS (VALUES (:low) UNION ALL SELECT n+1 FROM number WHERE n+1<:high)
INSERT INTO steps(step_id, task_id, agent_id, status, attempt, lease_epoch, created_at_ms, updated_at_ms, payload,
    queued_at_ms)
SELECT printf('stp_%s%09d', :name, n), printf('tsk_%s%09d', :name, n), 'echo', :status, :attempt, :attempt, :at+n,
    :at+n, 'payload', :at+n FROM number
"""
_ATTEMPTS = """
WITH RECURSIVE number(n) AS (VALUES (:low) UNION ALL SELECT n+1 FROM number WHERE n+1<:high)
INSERT INTO attempts(step_id, lease_epoch, attempt, outcome, finished_at_ms)
SELECT printf('stp_%s%09d', :name, n), 1, 1, 'dead_lettered', :at+n FROM number
"""


def run(folder: Path, *, dead: int, waiting: int, durability: str = "full") -> dict[str, Any]:
    """Return how long looks take at a root with so many tasks of each kind."""
    root = new_root(folder, durability)
    backlog.open_store(root, durability).close()
    _fill(root / DATABASE, dead=dead, waiting=waiting, progress=backlog.progress)
    empty = new_root(folder, durability)
    backlog.open_store(empty, durability).close()
    uncounted = {what: _look(root, empty, what) for what in _LOOKS}
    (root / "run" / "counts.json").unlink(missing_ok=True)
    counting = _count(root)
    counted = {what: _look(root, empty, what) for what in _LOOKS}
    return {
        "benchmark": "crowd",
        "nobody_has_counted": uncounted,
        "counting": counting,
        "a_node_has_counted": counted,
        "budget": [
            budget(f"{what}, first call of a process, ms", max(one[what]["first_ms"] for one in (uncounted, counted)),
                   "at_most", ANSWER_MS_MAX)
            for what in _LOOKS
        ],
        "settings": settings(folder, durability, dead=dead, waiting=waiting),
    }  # fmt: skip


def _fill(database: Path, *, dead: int, waiting: int, progress: Callable[[str], object]) -> None:
    conn = sqlite3.connect(database, isolation_level=None)
    at = backlog.now_ms() - 3_600_000
    with contextlib.closing(conn):
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-262144"):
            conn.execute(f"PRAGMA {pragma}").fetchall()
        kinds = (("d", "DEAD_LETTER", dead, 0, 1), ("p", "PENDING", waiting, 1, 0))
        for name, status, count, is_open, attempt in kinds:
            for low in range(0, count, CHUNK):
                values = {
                    "low": low, "high": min(low + CHUNK, count), "name": name, "status": status, "at": at,
                    "open": is_open, "attempt": attempt,
                }  # fmt: skip
                conn.execute("BEGIN")
                for statement in (_TASKS, _STEPS, *((_ATTEMPTS,) if attempt else ())):
                    conn.execute(statement, values)
                conn.execute("COMMIT")
                progress(f"{status}: {min(low + CHUNK, count):,} of {count:,} tasks stored")
        # On the disk and as nodes leave it, or the first look would wait for all that the fill has written.
        for pragma in ("locking_mode=NORMAL", "synchronous=FULL", "journal_mode=WAL", "wal_checkpoint(TRUNCATE)"):
            conn.execute(f"PRAGMA {pragma}").fetchall()


def _look(root: Path, empty: Path, what: str) -> dict[str, Any]:
    done = subprocess.run(
        python("-c", _LOOK, str(root), str(empty), what), capture_output=True, text=True, env=environment(), timeout=300
    )
    if done.returncode:
        raise BenchError(f"the look {what} failed: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout)
    return {name: rounded(value) if isinstance(value, float) else value for name, value in found.items()
            if value is not None}  # fmt: skip


def _count(root: Path) -> dict[str, Any]:
    """Count as a node does, without its pauses; return the pieces and what they took."""
    store = Database.open(root, now_ms=backlog.now_ms())
    try:
        keeper = CountKeeper(store)
        if not keeper.begin(backlog.now_ms()):
            return {"pieces": 0}  # there is little enough to be counted by everybody
        began, cpu, longest, pieces = time.perf_counter(), time.thread_time(), 0.0, 0
        more: int | None = 0
        while more is not None:
            at = time.perf_counter()
            more = keeper.piece(backlog.now_ms())
            longest, pieces = max(longest, time.perf_counter() - at), pieces + 1
        return {
            "pieces": pieces,
            "longest_piece_ms": rounded(longest * 1000),
            "seconds": rounded(time.perf_counter() - began),
            "cpu_s": rounded(time.thread_time() - cpu),
        }
    finally:
        store.close()
