"""What an operator asks of an open root: why a task waits, conflicts, one's own query, cancel and replay.

Each function is one transaction and the answer made of it. ``relaymesh.client`` opens the root before, and wakes the
nodes after a change. Counts, metrics and health are in ``relaymesh.observation``; maintenance and exports are whole in
``relaymesh/store`` (tick.py, export.py).

now_ms: the clock, not an instant. It is read inside the transaction, because the wait for the lock may have been long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from relaymesh.errors import TaskNotFoundError
from relaymesh.store import read
from relaymesh.view import CancelResult, Explanation, LeaseConflict, ReplayOutcome

if TYPE_CHECKING:
    from relaymesh.outcome import KeyringOutcome
    from relaymesh.settings import Settings
    from relaymesh.store.admin import CancelMode
    from relaymesh.store.database import Database
    from relaymesh.store.store import Store

__all__ = ["cancel", "explain", "key_status", "lease_conflicts", "query", "replay", "rotate_keys"]


# -- look ------------------------------------------------------------------------------------------------------------


def explain(
    store: Database, task_id: str, *, settings: Callable[[], Settings], now_ms: Callable[[], int]
) -> list[Explanation]:
    """Return, for each step that has not ended, the first reason why.

    Raises:
        TaskNotFoundError
    """
    from relaymesh.store.why import explanations

    with store.snapshot():
        if read.task_status(store.conn, task_id) is None:
            raise TaskNotFoundError(task_id)
        return explanations(
            store.conn,
            store.root / "run",
            task_id,
            lease_timeout_ms=settings().lease_timeout_ms,
            now_ms=now_ms(),
        )


def lease_conflicts(store: Database, *, limit: int, since_hours: int, now_ms: Callable[[], int]) -> list[LeaseConflict]:
    """Return refused writes of fenced owners, newest first."""
    with store.reading():
        return read.lease_conflicts(store.conn, since_ms=now_ms() - since_hours * 3_600_000, limit=limit)


def query(store: Database, sql: str, values: Sequence[object]) -> list[Any]:
    """Return the rows of a query that SQLite itself keeps from writing."""
    with store.reading():
        store.conn.execute("PRAGMA query_only=1")
        try:
            return store.conn.execute(sql, tuple(values)).fetchall()
        finally:
            store.conn.execute("PRAGMA query_only=0")


# -- change ----------------------------------------------------------------------------------------------------------


def cancel(
    store: Store, task_id: str, *, mode: CancelMode, reason: str, now_ms: Callable[[], int]
) -> tuple[CancelResult, int]:
    """Cancel a task; return what that moved, and the cluster epoch."""
    from relaymesh.store.admin import cluster_epoch

    with store.write():
        cancelled = store.cancel(task_id, mode=mode, reason=reason, now_ms=now_ms())
        epoch = cluster_epoch(store.conn)
    result = CancelResult(
        task_id=task_id,
        cancelled=cancelled.code == "cancelled",
        mode=mode.value,
        message=cancelled.code,
        step_rows=cancelled.step_rows,
        message_rows=cancelled.message_rows,
    )
    return result, epoch


def replay(store: Store, task_id: str, *, now_ms: Callable[[], int]) -> tuple[ReplayOutcome, str | None]:
    """Give the dead-lettered steps of a task a new start; return what came of it, and the status it had."""
    with store.write():
        status = read.task_status(store.conn, task_id)
        code = store.replay(task_id, now_ms=now_ms())
    return ReplayOutcome(task_id=task_id, replayed=code == "replayed", message=code), status


# -- payload keys ----------------------------------------------------------------------------------------------------


def key_status(store: Store, *, count: bool) -> KeyringOutcome:
    """Return which payload keys there are; count: also how much is not under the active one.

    Raises:
        SealError: the keyring cannot be used.
    """
    from relaymesh.outcome import KeyringCountOutcome, KeyringOutcome
    from relaymesh.store.reseal import leftover, ring_of
    from relaymesh.store.seal import KEYRING

    ring = ring_of(store)
    active, total = (ring.active, len(ring.keys)) if ring is not None else ("", 0)
    file = str(store.root / KEYRING)
    if not count:
        return KeyringOutcome(active_kid=active, total_keys=total, key_file=file)
    left = leftover(store, ring)
    return KeyringCountOutcome(
        active_kid=active,
        total_keys=total,
        key_file=file,
        under_old_keys=left.old,
        in_clear_text=left.clear,
        log_lines_under_old_keys=left.old_lines,
    )


def rotate_keys(store: Store, *, now_ms: int) -> KeyringOutcome:
    """Add a payload key and make it the active one.

    Raises:
        SealError: the keyring is as it was.
    """
    from relaymesh.outcome import KeyringOutcome
    from relaymesh.store.reseal import rotate
    from relaymesh.store.seal import KEYRING

    ring = rotate(store, now_ms=now_ms)
    return KeyringOutcome(active_kid=ring.active, total_keys=len(ring.keys), key_file=str(store.root / KEYRING))
