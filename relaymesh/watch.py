"""Follow a task by looking at the database: cheap while nothing is committed, quick while something is.

``PRAGMA data_version`` tells whether anybody committed since the last look and costs a few microseconds; only then are
rows read. So a wait works with a node, without one, and over a restart of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from relaymesh.errors import RelayMeshError, TaskNotFoundError
from relaymesh.store import read
from relaymesh.store.database import Database
from relaymesh.view import Event, LogEntry, TaskView

__all__ = ["WaitTimeoutError", "read_logs", "wait_for_end", "watch"]

TERMINAL: Final = ("SUCCESS", "DEAD_LETTER", "CANCELLED")
# (waited so far, pause): short while an answer may come any moment, longer once it takes its time. Seconds.
_PAUSES: Final = ((0.005, 0.0001), (0.02, 0.0002), (0.05, 0.0004), (0.5, 0.002), (5.0, 0.01))
_PAUSE_MAX: Final = 0.05
_LOG_LINES: Final = 500
_KINDS: Final = {
    "PENDING": "queued",
    "RUNNING": "started",
    "SUCCESS": "succeeded",
    "RETRYING": "retrying",
    "DEAD_LETTER": "dead_lettered",
    "CANCELLED": "cancelled",
}


class WaitTimeoutError(RelayMeshError):
    """The task has not ended in time; it goes on."""

    code = "wait_timeout"

    def __init__(self, task_id: str, status: str) -> None:
        super().__init__(task_id, status)
        self.task_id, self.status = task_id, status

    def __str__(self) -> str:
        return (
            f"task {self.task_id} is still {self.status}: it goes on,"
            f" `relaymesh explain {self.task_id}` says why it waits"
        )


class _Looks:
    """When to look again. ``next`` returns False when the time is over."""

    def __init__(self, store: Database, timeout_ms: int | None) -> None:
        self._store = store
        self._began = time.monotonic()
        self._deadline = None if timeout_ms is None else self._began + timeout_ms / 1000
        self._version = (-1, -1)

    def changed(self) -> bool:
        """Wait for a commit of somebody; False when the time is over."""
        while True:
            with self._store.reading():
                # The first number does not count what this connection itself commits, the second counts nothing else.
                version = (self._store.data_version(), self._store.conn.total_changes)
            if version != self._version:
                self._version = version
                return True
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline:
                return False
            waited = now - self._began
            if waited > _PAUSES[-1][0]:
                self._store.refuse_astray()
            pause = next((pause for until, pause in _PAUSES if waited < until), _PAUSE_MAX)
            time.sleep(pause if self._deadline is None else min(pause, max(0.0, self._deadline - now)))


def wait_for_end(store: Database, task_id: str, timeout_ms: int | None) -> TaskView:
    """Return the task once it has ended.

    Raises:
        TaskNotFoundError, WaitTimeoutError
        RootMovedError: there is nothing to wait for any more.
    """
    looks = _Looks(store, timeout_ms)
    status = ""
    while looks.changed():
        with store.reading():
            # The whole of it: a second look at what the first has found would come on top of the wait.
            view = read.task_view(store.conn, task_id, store.payloads.text)
        if view is None:
            raise TaskNotFoundError(task_id)
        status = view.status
        if status in TERMINAL:
            return view
    raise WaitTimeoutError(task_id, status)


def watch(store: Database, task_id: str, timeout_ms: int | None) -> Iterator[Event]:
    """Yield the present state of the task and its steps, then each change, until the task has ended.

    A state that lasted shorter than the time between two looks may be missed; the last state of each step never is.
    """
    looks = _Looks(store, timeout_ms)
    seen: dict[str, tuple[object, ...]] = {}
    seen_task: tuple[object, ...] | None = None
    status = ""
    while looks.changed():
        with store.reading():
            task = store.conn.execute(
                "SELECT status, last_error, updated_at_ms FROM tasks WHERE task_id=?", (task_id,)
            ).fetchone()
            if task is None:
                raise TaskNotFoundError(task_id)
            steps = store.conn.execute(
                "SELECT step_id, status, attempt, updated_at_ms, coalesce(progress, ''), coalesce(last_error, '')"
                # What has ended comes first: it may be what let the others start, within the same millisecond.
                " FROM steps WHERE task_id=? ORDER BY status NOT IN ('SUCCESS','DEAD_LETTER','CANCELLED'),"
                " updated_at_ms, id",
                (task_id,),
            ).fetchall()
        for step_id, step_status, attempt, at_ms, said, error in steps:
            progress = store.payloads.text("progress", step_id, said, None)
            now = (step_status, attempt, progress)
            before = seen.get(step_id)
            if now == before:
                continue
            seen[step_id] = now
            moved = before is None or before[:2] != now[:2]
            yield Event(
                task_id=task_id,
                step_id=step_id,
                kind=_KINDS.get(step_status, "changed") if moved else "progress",
                status=step_status,
                attempt=attempt,
                at_ms=at_ms,
                detail=(progress if step_status == "RUNNING" else error) or None,
            )
        status = task[0]
        if (status, task[1]) != seen_task:
            seen_task = (status, task[1])
            yield Event(
                task_id=task_id,
                step_id=None,
                kind=_KINDS.get(status, "changed"),
                status=status,
                attempt=None,
                at_ms=task[2],
                detail=task[1],
            )
        if status in TERMINAL:
            return
    raise WaitTimeoutError(task_id, status)


def read_logs(store: Database, task_id: str, *, follow: bool) -> Iterator[LogEntry]:
    """Yield log lines, oldest first; with ``follow`` until the task has ended.

    Raises:
        TaskNotFoundError
    """
    looks = _Looks(store, None)
    # An attempt brings all its lines when it ends, so they may be older than what others have told by then.
    told: set[tuple[str, int]] = set()
    while looks.changed():
        with store.reading():
            status = read.task_status(store.conn, task_id)
            if status is None:
                raise TaskNotFoundError(task_id)
            fresh = read.log_attempts(store.conn, task_id) - told
            keys = read.log_keys(store.conn, fresh) if fresh else []
        told |= fresh
        for start in range(0, len(keys), _LOG_LINES):
            with store.reading():
                entries = read.log_entries(store.conn, keys[start : start + _LOG_LINES], store.payloads.text)
            yield from entries
        if not follow or status in TERMINAL:
            return
