"""What an operator asks of an open root: why a task waits, one's own query, cancel and replay.

Each function is one transaction and the answer made of it. ``relaymesh.client`` opens the root before, and wakes the
nodes after a change. Counts, metrics and health are in ``relaymesh.observation``; maintenance and exports are whole in
``relaymesh/store`` (tick.py, export.py).

now_ms: the clock, not an instant. It is read inside the transaction, because the wait for the lock may have been long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from relaymesh.errors import InputError, TaskNotFoundError
from relaymesh.store import read
from relaymesh.view import (
    CancelResult,
    DeadLetterView,
    DiscardOutcome,
    Explanation,
    ReplayOutcome,
)

if TYPE_CHECKING:
    from relaymesh.settings import Settings
    from relaymesh.store.admin import CancelMode
    from relaymesh.store.database import Database
    from relaymesh.store.dead_letter import DeadFilter
    from relaymesh.store.store import Store

__all__ = [
    "cancel",
    "dead_letters",
    "dead_task_ids",
    "discard",
    "explain",
    "query",
    "replay",
]


# -- look ------------------------------------------------------------------------------------------------------------


def explain(
    store: Database, task_id: str, *, settings: Callable[[], Settings], now_ms: Callable[[], int]
) -> list[Explanation]:
    """Return, for each step that has not ended, the first reason why; for a name of the inbox, why that file waits.

    Raises:
        TaskNotFoundError
    """
    from relaymesh.store.why import explanations

    with store.snapshot():
        if not task_id.startswith("tsk_"):
            from relaymesh.inbox_gate import explain_file
            from relaymesh.store.node_row import live_nodes

            at_ms = now_ms()
            nodes = len(live_nodes(store.conn, store.root / "run", now_ms=at_ms))
            waiting = explain_file(store.conn, store.root, task_id, now_ms=at_ms, nodes=nodes)
            if waiting is not None:
                return [waiting]
        if read.task_status(store.conn, task_id) is None:
            raise TaskNotFoundError(task_id)
        held = settings()
        return explanations(
            store.conn,
            store.root / "run",
            task_id,
            lease_timeout_ms=held.lease_timeout_ms,
            now_ms=now_ms(),
            pauses=held.pause_worker_when_local_not_alive,
        )


def query(store: Database, sql: str, values: Sequence[object]) -> list[Any]:
    """Return the rows of a query that SQLite itself keeps from writing.

    Raises:
        InputError: it would change something, or is no SQL that can be run.
    """
    with store.reading():
        store.conn.execute("PRAGMA query_only=1")
        try:
            return store.conn.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", None)
            if name == "SQLITE_READONLY":
                raise InputError("a query only reads: use the other methods to change something") from error
            if name == "SQLITE_ERROR" or isinstance(error, sqlite3.ProgrammingError):
                # It was written by whoever asks, so unlike a statement of ours it is no defect of RelayMesh.
                raise InputError(f"the query cannot be run ({error}): mend the SQL, or its values") from error
            raise
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


def replay(
    store: Store,
    task_id: str,
    *,
    edits: Mapping[str | None, str] = MappingProxyType({}),
    from_step: str | None = None,
    now_ms: Callable[[], int],
) -> tuple[ReplayOutcome, dict[str, object]]:
    """Give the dead-lettered steps of a task a new start; return what came of it, and what the audit log keeps.

    edits: name of a step, or None for the only dead one, to its new input, which was checked as at a submit.

    Raises:
        NoSuchDeadStepError, NotEditableError: nothing was changed.
    """
    from relaymesh.store import dead_letter
    from relaymesh.store.admin import cluster_epoch

    with store.reading():
        # What the caller looks at: bumped before the write, whoever bumped it wants to look again.
        epoch = cluster_epoch(store.conn)
    with store.write():
        status = read.task_status(store.conn, task_id)
        details: dict[str, object] = {"status": status}
        by_id: dict[str, str] = {}
        start = None
        if status == "DEAD_LETTER":
            changes = []
            for name, text in edits.items():
                step_id = _dead_step(store, task_id, name)
                by_id[step_id] = text
                changes.append(
                    {"step_id": step_id, "old": _old_input(store, step_id), "new": store.payloads.seal.trace(text)}
                )
            if changes:
                details["edited"] = changes
            if from_step is not None:
                start = dead_letter.step_of(store.conn, task_id, from_step, dead=False)
                details["from_step"] = start
        code = store.replay(task_id, now_ms=now_ms(), cluster_epoch=epoch, edits=by_id, from_step=start)
        if code != "replayed" and by_id:
            # Cannot be: the task was looked at in this transaction, and so was the epoch but for a bump meanwhile.
            raise dead_letter.NotEditableError(
                f"task {task_id} has changed meanwhile ({code}): look at it again; nothing was changed"
            )
    return ReplayOutcome(task_id=task_id, replayed=code == "replayed", message=code), details


def _dead_step(store: Store, task_id: str, name: str | None) -> str:
    from relaymesh.store import dead_letter

    if name is not None:
        return dead_letter.step_of(store.conn, task_id, name, dead=True)
    dead = dead_letter.dead_steps_of(store.conn, task_id)
    if len(dead) != 1:
        names = ", ".join(step_id.removeprefix(f"stp_{task_id}_") for step_id in dead[:5])
        raise dead_letter.NotEditableError(
            f"task {task_id} has {len(dead)} dead-lettered steps ({names}): say which gets the input, with --step;"
            " nothing was changed"
        )
    return dead[0]


def _old_input(store: Store, step_id: str) -> dict[str, object] | None:
    """Return what the audit log keeps of the input: never the text, which may hold a secret."""
    from relaymesh.store.dead_letter import stored_input
    from relaymesh.store.payload import PayloadMissingError
    from relaymesh.store.seal import PayloadTamperedError

    try:
        return store.payloads.seal.trace(stored_input(store.conn, step_id, store.payloads.text))
    except (PayloadMissingError, PayloadTamperedError):
        return None  # it is lost, which may be why it gets another


def discard(
    store: Store, task_id: str, *, reason: str, actor: str, now_ms: Callable[[], int]
) -> tuple[DiscardOutcome, dict[str, object]]:
    """Take a task off the dead letters for good; return what came of it, and what the audit log keeps."""
    from relaymesh.store.admin import cluster_epoch

    with store.reading():
        epoch = cluster_epoch(store.conn)
    with store.write():
        code, steps = store.discard(task_id, reason=reason, actor=actor, cluster_epoch=epoch, now_ms=now_ms())
    outcome = DiscardOutcome(task_id=task_id, discarded=code == "discarded", message=code, step_rows=steps)
    return outcome, {"reason": reason, "step_rows": steps, "cluster_epoch": epoch}


def dead_letters(store: Database, wanted: DeadFilter, *, limit: int) -> list[DeadLetterView]:
    """Return dead-lettered steps, the latest death first."""
    from relaymesh.store.dead_letter import dead_steps

    with store.reading():
        found = dead_steps(store.conn, wanted, limit=limit)
    return [
        DeadLetterView(
            task_id=step.task_id,
            step_id=step.step_id,
            agent=step.agent_id,
            error_class=step.code,
            last_error=step.error,
            attempt=step.attempt,
            priority=step.priority,
            created_at_ms=step.created_at_ms,
            updated_at_ms=step.died_at_ms,
        )
        for step in found
    ]


def dead_task_ids(store: Database, wanted: DeadFilter, *, limit: int) -> list[str]:
    """Return the dead-lettered tasks that have such a step, the latest death first."""
    from relaymesh.store.dead_letter import dead_tasks

    with store.reading():
        return dead_tasks(store.conn, wanted, limit=limit)
