"""Remove what is old, in pieces that hold the writer for a moment each.

    keys ──▶ tasks that ended (steps, dependencies, attempts, log lines, then the task) ──▶ parts of tasks that stay
         ──▶ lease conflicts

Each call of ``Purge.piece`` reads which rows come next, outside of any transaction, and removes at most ``rows`` of
them in one write transaction that looks at each of them again. A task with more rows than fit goes in several pieces;
until its last one it is marked in ``cluster_state``, so that nobody replays half of it and the next purge begins with
it.

Payload files are not touched here: ``relaymesh.store.sweep`` removes those that no row names any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from relaymesh.core.retention import Ages
from relaymesh.store.admin import forget_keys_from, purging
from relaymesh.store.budget_rows import forget_task_budgets
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
_READ_MAX = 512
_DONE = "SUCCESS"


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
        """How long the last piece took, its wait for other writers left out: pieces are sized by that."""
        self._waited_ns = 0
        self._stages = list(_Stage)
        self._at = (-1, 0)

    def piece(self, rows: int) -> int | None:
        """Remove at most about ``rows`` rows; return how many rows were looked at or removed, None at the end.

        A single step is the least that goes at once, with as many log lines as fit.

        Raises:
            StoreError, RootError: nothing of this piece was removed; call it again.
        """
        began_ns, self._waited_ns = time.monotonic_ns(), 0
        try:
            while self._stages:
                done = self._step(self._stages[0], max(1, rows))
                if done is not None:
                    return done
                self._stages.pop(0)
                self._at = (-1, 0)
            return None
        finally:
            self.worked_ns = time.monotonic_ns() - began_ns - self._waited_ns

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
        with self._store.write():
            self._waited_ns += time.monotonic_ns() - asked_ns
            yield

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
        with self._writing():
            seen, forgotten = forget_keys_from(self._store.conn, before_ms=self._ages.keys_before_ms, limit=rows)
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
            with self._writing():
                if purging(store.conn) is not None:
                    return 1  # another process has begun with a large task meanwhile: that one comes first
                for task in old:
                    if left <= 0:
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
        """Remove up to ``rows`` rows of a task that was decided on, the task itself last; return how many."""
        conn, purged, left = self._store.conn, self.purged, rows
        while left > 0:
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
                lines = self._drop_logs_of(step_id, left)
                left -= lines
                if left <= 0 and lines:
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
                if left <= 0:
                    break
        conn.execute(_PURGING, (task_id, self._now_ms()))
        return rows - left

    def _drop_logs_of(self, step_id: str, rows: int) -> int:
        """Remove the first ``rows`` log lines of a step."""
        lines = self._store.conn.execute(
            "DELETE FROM attempt_logs WHERE step_id=?1 AND (lease_epoch, line) IN (SELECT lease_epoch, line"
            " FROM attempt_logs WHERE step_id=?1 ORDER BY lease_epoch, line LIMIT ?2)",
            (step_id, rows),
        ).rowcount
        self.purged.log_lines += lines
        return lines

    def _drop_attempts_of(self, step_id: str) -> tuple[int, int]:
        """Remove the attempts of a step: a handful, for the retry policy bounds them; return failed and other ones."""
        gone = self._store.conn.execute("DELETE FROM attempts WHERE step_id=? RETURNING outcome", (step_id,)).fetchall()
        failed = sum(row[0] == "failed" for row in gone)
        self.purged.retried_messages += failed
        return failed, len(gone) - failed

    # Parts of tasks that stay.

    def _parts(self, state_key: str, before_ms: int | None, rows: int, drop: Callable[[str, int], int]) -> int | None:
        """Go over the ended tasks in the order of their last change, from where the last round stopped."""
        if before_ms is None:
            return None
        conn = self._store.conn
        with self._writing():
            row = conn.execute("SELECT state_value FROM cluster_state WHERE state_key=?", (state_key,)).fetchone()
            at = tuple(int(part) for part in row[0].split()) if row is not None else (-1, 0)
            page = self._page((at[0], at[1]), before_ms, min(rows, _READ_MAX))
            left = rows
            for task in page:
                if task.finished_at_ms is not None:
                    left -= drop(task.task_id, left)
                    if left <= 0:
                        break  # there may be more of it: it comes first in the next piece
                at = (task.updated_at_ms, task.row_id)
                left -= 1
            if page:
                conn.execute(_WALKED, (state_key, f"{at[0]} {at[1]}", self._now_ms()))
        return rows - left if page else None

    def _drop_result(self, task_id: str, _rows: int) -> int:
        conn = self._store.conn
        changed = conn.execute(
            "UPDATE steps SET result_payload=NULL, result_path=NULL WHERE task_id=?"
            " AND (result_payload IS NOT NULL OR result_path IS NOT NULL)",
            (task_id,),
        ).rowcount
        conn.execute("UPDATE tasks SET result_payload=NULL WHERE task_id=?", (task_id,))
        return changed

    def _drop_messages(self, task_id: str, _rows: int) -> int:
        steps = self._store.conn.execute("SELECT step_id FROM steps WHERE task_id=?", (task_id,)).fetchall()
        return sum(sum(self._drop_attempts_of(step_id)) for (step_id,) in steps)

    def _drop_logs(self, task_id: str, rows: int) -> int:
        steps = self._store.conn.execute("SELECT step_id FROM steps WHERE task_id=?", (task_id,)).fetchall()
        dropped = 0
        for (step_id,) in steps:
            dropped += self._drop_logs_of(step_id, max(1, rows - dropped))
            if dropped >= rows:
                break
        return dropped

    def _conflicts(self, rows: int) -> int | None:
        with self._writing():
            gone = self._store.conn.execute(
                "DELETE FROM lease_conflicts WHERE id IN (SELECT id FROM lease_conflicts"
                " INDEXED BY lease_conflicts_time WHERE occurred_at_ms<? ORDER BY occurred_at_ms LIMIT ?)",
                (self._ages.conflicts_before_ms, rows),
            ).rowcount
        self.purged.conflicts += gone
        return gone or None

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
