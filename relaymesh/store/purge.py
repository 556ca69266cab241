"""Remove what is old, in pieces that hold the writer for a moment each.

    keys ──▶ tasks that ended (steps, dependencies, attempts, log lines, then the task) ──▶ parts of tasks that stay
         ──▶ lease conflicts

Each call of ``Purge.piece`` reads which rows come next, outside of any transaction, and removes at most ``rows`` of
them in one write transaction that looks at each of them again. What will be touched is read before, so that the writer
is not held while the disk is asked for it; and a transaction that has worked for ``WORK_NS`` ends, whatever is left
(relaymesh.core.retention). A task with more rows than fit goes in several pieces; until its last one it is marked in
``cluster_state``, so that nobody replays half of it and the next purge begins with it.

Payload files are not touched here: ``relaymesh.store.sweep`` removes those that no row names any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from relaymesh.core.retention import Ages, is_spent
from relaymesh.store.admin import forget_keys_from, purging
from relaymesh.store.budget_rows import forget_task_budgets
from relaymesh.store.connection import keen
from relaymesh.store.store import Store

__all__ = ["Purge", "Purged", "local_day"]

_ENDED = "finished_at_ms IS NOT NULL"
_FRESHLY_ENDED = """
SELECT updated_at_ms, id, task_id, status, finished_at_ms, key_live FROM tasks INDEXED BY tasks_updated
WHERE (updated_at_ms, id)>(?,?) AND updated_at_ms<? ORDER BY updated_at_ms, id LIMIT ?
"""
_PURGING = """
INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES ('purging', ?, 1, ?)
ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,
    updated_at_ms=excluded.updated_at_ms
"""
_WALKED = """
INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?, ?, 1, ?)
ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,
    updated_at_ms=excluded.updated_at_ms
"""
_KEYS_TOUCHED = """
SELECT count(*) FROM tasks k INDEXED BY tasks_live_key WHERE k.key_live=1 AND k.idempotency_key IN (
    SELECT idempotency_key FROM tasks INDEXED BY tasks_updated
    WHERE (updated_at_ms, id)>(?,?) AND updated_at_ms<? ORDER BY updated_at_ms, id LIMIT ?)
"""
_IDS = "(SELECT value FROM json_each(?))"
# Texts are read to their ends, for a long one lies in pages of its own, which are let go one by one.
_TOUCHED = (
    f"SELECT total(length(result_payload)) FROM tasks WHERE task_id IN {_IDS}",
    "SELECT total(length(s.payload)), total(length(s.result_payload)), count(d.step_id) FROM steps s"
    f" LEFT JOIN step_dependencies d ON d.depends_on_step_id=s.step_id WHERE s.task_id IN {_IDS}",
    f"SELECT count(a.error) FROM steps s JOIN attempts a ON a.step_id=s.step_id WHERE s.task_id IN {_IDS}",
    "SELECT total(length(l.text)) FROM (SELECT step_id FROM steps"
    f" WHERE task_id IN {_IDS}) s JOIN attempt_logs l ON l.step_id=s.step_id LIMIT 4096",
)
_READ_MAX = 512
_AT_ONCE = 64
"""Rows of one statement: between two the time is looked at."""
_Drop = Callable[[str, int], tuple[int, bool]]
_DONE = "SUCCESS"
PIECES_PER_COPY = 4
"""After so many pieces what they have written to the log is copied into the database."""


@dataclass(slots=True)
class Purged:
    """What was removed so far. days: local dates on which done tasks had ended."""

    days: set[str] = field(default_factory=set)
    tasks: int = 0
    steps: int = 0
    dead_messages: int = 0
    retried_messages: int = 0
    log_lines: int = 0
    keys: int = 0
    conflicts: int = 0
    named_payloads: int = 0

    @property
    def rows(self) -> int:
        """Everything together; what a piece is measured by."""
        return self.tasks + self.steps + self.dead_messages + self.retried_messages + self.log_lines + self.conflicts


class _Stage(Enum):
    KEYS = "keys"
    TASKS = "tasks"
    RESULTS = "results"
    MESSAGES = "messages"
    LOGS = "logs"
    CONFLICTS = "conflicts"


class _Ended(NamedTuple):
    updated_at_ms: int
    row_id: int
    task_id: str
    status: str
    finished_at_ms: int | None
    key_live: int


class Purge:
    """One round over a root. Not thread-safe.

    day_of: the local date of an instant; tests hand in their own.
    """

    def __init__(
        self, store: Store, ages: Ages, *, now_ms: Callable[[], int], day_of: Callable[[int], str] | None = None
    ) -> None:
        self._store, self._ages, self._now_ms = store, ages, now_ms
        self._day_of = day_of or local_day
        self.purged = Purged()
        self.worked_ns = 0
        """How long the last piece took, its wait for other writers left out: so long they are left alone then."""
        self.held_ns = 0
        """How long the last piece held the writer, its commit included: pieces are sized by that."""
        self._waited_ns = self._began_ns = self._pieces = 0
        self._stages = list(_Stage)
        self._at = (-1, 0)
        # The log is copied between the pieces (``_checkpoint``), not within their commits.
        store.conn.execute("PRAGMA wal_autocheckpoint=0")

    def piece(self, rows: int) -> int | None:
        """Remove at most about ``rows`` rows; return how many rows were looked at or removed, None at the end.

        A single step is the least that goes at once, with as many log lines as fit.

        Raises:
            StoreError, RootError: nothing of this piece was removed; call it again.
        """
        began_ns, self._waited_ns, self.held_ns = time.monotonic_ns(), 0, 0
        try:
            while self._stages:
                done = self._step(self._stages[0], max(1, rows))
                if done is not None:
                    self._checkpoint()
                    return done
                self._stages.pop(0)
                self._at = (-1, 0)
            return None
        finally:
            self.worked_ns = time.monotonic_ns() - began_ns - self._waited_ns

    def _checkpoint(self) -> None:
        """Now and then copy the log into the database; nobody who writes waits for that."""
        self._pieces += 1
        if self._pieces % PIECES_PER_COPY == 0:
            with self._store.reading():
                self._store.conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def count(self) -> Purged:
        """Return what a round would remove, without removing it: reads in pieces, and holds no writer."""
        found, ages = Purged(), self._ages
        at = (-1, 0)
        while page := self._page(at, max(self._task_limit() or 0, ages.keys_before_ms or 0), _READ_MAX):
            at = (page[-1].updated_at_ms, page[-1].row_id)
            for task in page:
                key_goes = bool(task.key_live) and self._is_before(task, ages.keys_before_ms)
                found.keys += key_goes
                if self._goes(task, key_live=bool(task.key_live) and not key_goes):
                    self._add(found, task)
        return found

    @contextmanager
    def _writing(self) -> Iterator[None]:
        asked_ns = time.monotonic_ns()
        with keen(self._store.conn):
            with self._store.write():
                self._began_ns = time.monotonic_ns()
                self._waited_ns += self._began_ns - asked_ns
                yield
            self.held_ns = time.monotonic_ns() - self._began_ns

    def _spent(self) -> bool:
        return is_spent(time.monotonic_ns() - self._began_ns)

    # -- stages: each does one piece and returns its size, or None when nothing is left of it

    def _step(self, stage: _Stage, rows: int) -> int | None:
        ages = self._ages
        match stage:
            case _Stage.KEYS:
                return self._keys(rows) if ages.keys_before_ms is not None else None
            case _Stage.TASKS:
                return self._tasks(rows)
            case _Stage.RESULTS:
                return self._parts("results_dropped", ages.results_before_ms, rows, self._drop_result)
            case _Stage.MESSAGES:
                return self._parts("messages_dropped", ages.messages_before_ms, rows, self._drop_messages)
            case _Stage.LOGS:
                return self._parts("logs_dropped", ages.logs_before_ms, rows, self._drop_logs)
            case _Stage.CONFLICTS:
                return self._conflicts(rows) if ages.conflicts_before_ms is not None else None

    def _keys(self, rows: int) -> int | None:
        assert self._ages.keys_before_ms is not None
        conn, before_ms, seen, forgotten = self._store.conn, self._ages.keys_before_ms, 0, 0
        self._warm_keys(before_ms, rows)
        with self._writing():
            while True:
                some, gone = forget_keys_from(conn, before_ms=before_ms, limit=min(rows - seen, _AT_ONCE))
                seen, forgotten = seen + some, forgotten + gone
                if not some or seen >= rows or self._spent():
                    break
        self.purged.keys += forgotten
        return seen or None

    def _tasks(self, rows: int) -> int | None:
        store = self._store
        half_gone = purging(store.conn)
        if half_gone is not None:
            with self._writing():
                return self._remove(half_gone, rows)
        limit = self._task_limit()
        if limit is None:
            return None
        page = self._page(self._at, limit, min(rows, _READ_MAX))
        if not page:
            return None
        left, looked = rows, 0
        old = [task for task in page if self._goes(task, key_live=bool(task.key_live))]
        if old:
            self._warm(task.task_id for task in old)
            with self._writing():
                if purging(store.conn) is not None:
                    return 1  # another process has begun with a large task meanwhile: that one comes first
                for task in old:
                    if left <= 0 or (looked and self._spent()):
                        break
                    left -= self._remove_if_old(task, left)
                    self._at, looked = (task.updated_at_ms, task.row_id), looked + 1
        if looked == len(old):
            self._at = (page[-1].updated_at_ms, page[-1].row_id)
        return max(1, rows - left)

    def _remove_if_old(self, task: _Ended, rows: int) -> int:
        """Remove an ended task that has not changed since it was read."""
        unchanged = self._store.conn.execute(
            f"SELECT 1 FROM tasks t WHERE id=? AND updated_at_ms=? AND {_ENDED} AND NOT EXISTS"
            " (SELECT 1 FROM steps s WHERE s.task_id=t.task_id AND s.status='RUNNING')",
            (task.row_id, task.updated_at_ms),
        ).fetchone()
        return 1 if unchanged is None else self._remove(task.task_id, rows)

    def _remove(self, task_id: str, rows: int) -> int:
        """Remove up to ``rows`` rows of a task that was decided on, the task itself last; return how many.

        It ends earlier when the time of the piece is spent, one step at least having gone.
        """
        conn, purged, left, over = self._store.conn, self.purged, rows, False
        while left > 0 and not over:
            steps = conn.execute(
                "SELECT id, step_id, status, waiting_on, payload_path<>'' OR result_path IS NOT NULL FROM steps"
                " WHERE task_id=? LIMIT ?",
                (task_id, min(left, _READ_MAX)),
            ).fetchall()
            if not steps:
                row = conn.execute(
                    "SELECT namespace, status, finished_at_ms FROM tasks WHERE task_id=?", (task_id,)
                ).fetchone()
                if row is not None:
                    conn.execute("DELETE FROM step_dependencies WHERE namespace=? AND task_id=?", (row[0], task_id))
                    forget_task_budgets(conn, task_id)
                    conn.execute("DELETE FROM tasks WHERE task_id=?", (task_id,))
                    purged.tasks += 1
                    if row[1] == _DONE:
                        purged.days.add(self._day_of(row[2]))
                conn.execute("DELETE FROM cluster_state WHERE state_key='purging'")
                return rows - left + 1
            for row_id, step_id, status, waiting_on, names_files in steps:
                lines, whole = self._drop_logs_of(step_id, left)
                left -= lines
                if not whole:
                    over = True
                    break
                failed, other = self._drop_attempts_of(step_id)
                conn.execute("DELETE FROM attempt_spending WHERE step_id=?", (step_id,))  # as few as its attempts
                conn.execute(
                    "DELETE FROM step_dependencies WHERE namespace=(SELECT namespace FROM steps WHERE id=?)"
                    " AND task_id=? AND step_id=?",
                    (row_id, task_id, step_id),
                )
                conn.execute("DELETE FROM steps WHERE id=?", (row_id,))
                left -= 1 + failed + other
                purged.steps += 1
                purged.named_payloads += names_files
                purged.dead_messages += status == "DEAD_LETTER" or (status == "CANCELLED" and not waiting_on)
                over = self._spent()
                if left <= 0 or over:
                    break
        conn.execute(_PURGING, (task_id, self._now_ms()))
        return rows - left

    def _drop_logs_of(self, step_id: str, rows: int) -> tuple[int, bool]:
        """Remove the first ``rows`` log lines of a step; return how many, and whether that were all."""
        lines = 0
        while True:
            limit = min(rows - lines, _AT_ONCE)
            gone = self._store.conn.execute(
                "DELETE FROM attempt_logs WHERE step_id=?1 AND (lease_epoch, line) IN (SELECT lease_epoch, line"
                " FROM attempt_logs WHERE step_id=?1 ORDER BY lease_epoch, line LIMIT ?2)",
                (step_id, limit),
            ).rowcount
            lines += gone
            self.purged.log_lines += gone
            if gone < limit:
                return lines, True
            if lines >= rows or self._spent():
                return lines, False

    def _drop_attempts_of(self, step_id: str) -> tuple[int, int]:
        """Remove the attempts of a step: a handful, for the retry policy bounds them; return failed and other ones."""
        gone = self._store.conn.execute("DELETE FROM attempts WHERE step_id=? RETURNING outcome", (step_id,)).fetchall()
        failed = sum(row[0] == "failed" for row in gone)
        self.purged.retried_messages += failed
        return failed, len(gone) - failed

    # Parts of tasks that stay.

    def _parts(self, state_key: str, before_ms: int | None, rows: int, drop: _Drop) -> int | None:
        """Go over the ended tasks in the order of their last change, from where the last round stopped."""
        if before_ms is None:
            return None
        conn = self._store.conn
        at = self._walked(state_key)
        page = self._page(at, before_ms, min(rows, _READ_MAX))
        if not page:
            return None
        self._warm(task.task_id for task in page)
        with self._writing():
            if self._walked(state_key) != at:
                return 1  # another process has gone on meanwhile: look again
            left = rows
            for task in page:
                if task.finished_at_ms is not None:
                    count, whole = drop(task.task_id, left)
                    left -= count
                    if not whole:
                        break  # the rest of it comes first in the next piece
                at = (task.updated_at_ms, task.row_id)
                left -= 1
                if left <= 0 or self._spent():
                    break
            conn.execute(_WALKED, (state_key, f"{at[0]} {at[1]}", self._now_ms()))
        return max(1, rows - left)

    def _walked(self, state_key: str) -> tuple[int, int]:
        """Return the last task that was gone over."""
        row = self._store.conn.execute(
            "SELECT state_value FROM cluster_state WHERE state_key=?", (state_key,)
        ).fetchone()
        if row is None:
            return -1, 0
        at_ms, row_id = (int(part) for part in row[0].split())
        return at_ms, row_id

    # Each returns how many rows it changed, and whether nothing of the task is left to do.

    def _drop_result(self, task_id: str, rows: int) -> tuple[int, bool]:
        conn, changed = self._store.conn, 0
        while True:
            limit = max(1, min(rows - changed, _AT_ONCE))
            some = conn.execute(
                "UPDATE steps SET result_payload=NULL, result_path=NULL WHERE id IN (SELECT id FROM steps"
                " WHERE task_id=? AND (result_payload IS NOT NULL OR result_path IS NOT NULL) LIMIT ?)",
                (task_id, limit),
            ).rowcount
            changed += some
            if some < limit:
                break
            if changed >= rows or self._spent():
                return changed, False
        conn.execute("UPDATE tasks SET result_payload=NULL WHERE task_id=?", (task_id,))
        return changed, True

    def _drop_messages(self, task_id: str, rows: int) -> tuple[int, bool]:
        dropped = 0
        for step_id in self._steps_with("attempts", task_id, rows):
            dropped += sum(self._drop_attempts_of(step_id))
            if dropped >= rows or self._spent():
                return dropped, False
        return dropped, True

    def _drop_logs(self, task_id: str, rows: int) -> tuple[int, bool]:
        dropped = 0
        for step_id in self._steps_with("attempt_logs", task_id, rows):
            count, whole = self._drop_logs_of(step_id, max(1, rows - dropped))
            dropped += count
            if not whole or dropped >= rows or self._spent():
                return dropped, False
        return dropped, True

    def _steps_with(self, table: str, task_id: str, rows: int) -> list[str]:
        """Return steps of a task that have rows in a table, as many as a piece may need."""
        found = self._store.conn.execute(
            f"SELECT s.step_id FROM steps s WHERE s.task_id=? AND EXISTS (SELECT 1 FROM {table} x"
            " WHERE x.step_id=s.step_id) LIMIT ?",
            (task_id, rows),
        ).fetchall()
        return [step_id for (step_id,) in found]

    def _conflicts(self, rows: int) -> int | None:
        with self._writing():
            gone = self._store.conn.execute(
                "DELETE FROM lease_conflicts WHERE id IN (SELECT id FROM lease_conflicts"
                " INDEXED BY lease_conflicts_time WHERE occurred_at_ms<? ORDER BY occurred_at_ms LIMIT ?)",
                (self._ages.conflicts_before_ms, rows),
            ).rowcount
        self.purged.conflicts += gone
        return gone or None

    # What will be touched, read before the writer is held: the disk may take long to find it.

    def _warm(self, task_ids: Iterable[str]) -> None:
        ids = json.dumps(list(task_ids))
        for query in _TOUCHED:
            with self._store.reading():
                self._store.conn.execute(query, (ids,)).fetchall()

    def _warm_keys(self, before_ms: int, rows: int) -> None:
        with self._store.reading():
            self._store.conn.execute(_KEYS_TOUCHED, (*self._walked("keys_forgotten"), before_ms, rows)).fetchall()

    # What is old.

    def _page(self, at: tuple[int, int], before_ms: int, limit: int) -> list[_Ended]:
        with self._store.reading():
            rows = self._store.conn.execute(_FRESHLY_ENDED, (*at, before_ms, limit)).fetchall()
        return [_Ended(*row) for row in rows]

    def _task_limit(self) -> int | None:
        limits = [at for at in (self._ages.done_before_ms, self._ages.dead_before_ms) if at is not None]
        return max(limits, default=None)

    def _goes(self, task: _Ended, *, key_live: bool) -> bool:
        before = self._ages.done_before_ms if task.status == _DONE else self._ages.dead_before_ms
        return not key_live and self._is_before(task, before)

    @staticmethod
    def _is_before(task: _Ended, before_ms: int | None) -> bool:
        ended = task.finished_at_ms
        return before_ms is not None and ended is not None and max(ended, task.updated_at_ms) < before_ms

    def _add(self, found: Purged, task: _Ended) -> None:
        found.tasks += 1
        if task.status == _DONE:
            found.days.add(self._day_of(task.finished_at_ms or 0))
        steps, dead, named = self._store.conn.execute(
            "SELECT count(*), coalesce(sum(status='DEAD_LETTER' OR (status='CANCELLED' AND waiting_on=0)), 0),"
            " coalesce(sum(payload_path<>'' OR result_path IS NOT NULL), 0) FROM steps WHERE task_id=?",
            (task.task_id,),
        ).fetchone()
        (failed,) = self._store.conn.execute(
            "SELECT count(*) FROM steps s JOIN attempts a ON a.step_id=s.step_id AND a.outcome='failed'"
            " WHERE s.task_id=?",
            (task.task_id,),
        ).fetchone()
        found.steps += steps
        found.dead_messages += dead
        found.named_payloads += named
        found.retried_messages += failed


def local_day(at_ms: int) -> str:
    """Return the local date of an instant, as the folders below ``done/`` are named."""
    from datetime import datetime

    return datetime.fromtimestamp(at_ms / 1000).strftime("%Y-%m-%d")
