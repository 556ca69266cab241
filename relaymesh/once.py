"""A node that is run for one poll of a worker, and what attempts came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from relaymesh.node_view import WorkerOutcome
from relaymesh.settings import load_settings
from relaymesh.store.admin import cluster_epoch
from relaymesh.store.conflict import conflicts_at
from relaymesh.store.refused_claim import SeenStep, first_ready, record_taken
from relaymesh.store.root import create_layout, normalize_namespace, scoped_root
from relaymesh.store.store import Store

if TYPE_CHECKING:
    from relaymesh.node import NodeOptions
    from relaymesh.settings import Settings

__all__ = ["idle", "outcome_of", "outcomes", "poll"]

# The attempts of a step that did not succeed are kept, so what one came to is known when the step has long gone on.
_ENDED = """
SELECT s.step_id, s.task_id, v.lease_epoch, s.lease_epoch=v.lease_epoch, s.status, t.status, s.attempt,
    s.next_retry_at_ms, a.outcome, a.attempt, coalesce(a.error, s.last_error), EXISTS (
        SELECT 1 FROM lease_conflicts c WHERE c.step_id=s.step_id AND c.expected_lease_epoch=v.lease_epoch
        AND c.event_type IN ('success_commit_conflict', 'failure_commit_conflict'))
FROM (SELECT key, json_extract(value, '$[0]') row_id, json_extract(value, '$[1]') lease_epoch FROM json_each(?)) v
LEFT JOIN steps s ON s.id=v.row_id LEFT JOIN tasks t ON t.task_id=s.task_id
LEFT JOIN attempts a ON a.step_id=s.step_id AND a.lease_epoch=v.lease_epoch
ORDER BY v.key
"""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _open(options: NodeOptions) -> Store:
    namespace = normalize_namespace(options.namespace)
    root = scoped_root(options.root, namespace)
    create_layout(root)
    return Store.open(root, namespace=namespace, now_ms=_now_ms())


def poll(options: NodeOptions) -> WorkerOutcome | SeenStep | None:
    """Return why a poll would take nothing now, or a step that is ready; None when those that are have keys."""
    from relaymesh.agents.registry import load_registry

    store = _open(options)
    try:
        settings = load_settings(store.root)
        node_id = options.node_id or "node-local"
        if settings.pause_worker_when_local_not_alive:
            reason = _paused(store, node_id, settings, options.worker_id)
            if reason:
                return idle(f"paused: {reason}")
        agents = load_registry(store.root, options.agents).specs
        due = store.next_due_ms()
        if due is not None and due <= _now_ms():
            with store.write():
                store.promote_due(now_ms=_now_ms(), limit=settings.retry_dispatch_limit)
                fired = store.fire_due(now_ms=_now_ms())
            if fired:
                from relaymesh.audit import AuditTrail
                from relaymesh.audit.event import fired_bodies

                trail = AuditTrail(store.root, store.namespace)
                trail.append(
                    fired_bodies(
                        fired, namespace=store.namespace, actor="runtime", now_ms=_now_ms(), masked=trail.masked_names()
                    )
                )
        groups = [group for group in store.ready_groups() if group[0] in agents]
        if not groups:
            return idle("nothing is ready for the agents of this process")
        with store.reading():
            return first_ready(store.conn, groups)
    finally:
        store.close()


def _paused(store: Store, node_id: str, settings: Settings, actor: str) -> str:
    """Return why the worker of this node takes nothing, "" when it does.

    The poll that was skipped is counted and recorded, and is a heartbeat: the next one may find the node ALIVE.
    """
    from relaymesh.audit import AuditTrail
    from relaymesh.audit.member import pause_record
    from relaymesh.core.mesh.local import why_paused
    from relaymesh.core.mesh.silence import Patience
    from relaymesh.store.counter import WORKER_PAUSED, counters
    from relaymesh.store.member import status_of, take_heartbeat

    with store.reading():
        status = status_of(store.conn, node_id)
    reason = why_paused(node_id, status)
    if not reason:
        return ""
    now_ms = _now_ms()
    with store.write():
        take_heartbeat(store.conn, node_id, heartbeat_ms=now_ms, now_ms=now_ms, patience=Patience.of(settings))
        store.add_counter(WORKER_PAUSED, 1)
        total = counters(store.conn).get(WORKER_PAUSED, 0)
    AuditTrail(store.root, store.namespace).record_many(
        [pause_record(node_id, status or "", reason, total, actor=actor)]
    )
    return reason


def idle(message: str) -> WorkerOutcome:
    """Return the outcome of a poll that took nothing."""
    return WorkerOutcome(processed=False, task_id=None, msg_id=None, message=message)


def outcome_of(
    options: NodeOptions,
    claimed: tuple[str, str, int] | None,
    seen: SeenStep | None = None,
    paused_reason: str = "",
) -> WorkerOutcome:
    """Return what became of the step that a poll took.

    seen: the one that it went for. paused_reason: why the node took none.
    """
    if claimed is None and paused_reason:
        return idle(f"paused: {paused_reason}")
    store = _open(options)
    try:
        if claimed is None:
            return _taken_by_another(store, options, seen)
        _, step_id, lease_epoch = claimed
        (row_id,) = store.conn.execute("SELECT id FROM steps WHERE step_id=?", (step_id,)).fetchone()
        (outcome,) = outcomes(lambda sql, values: store.conn.execute(sql, values).fetchall(), [(row_id, lease_epoch)])
    finally:
        store.close()
    return outcome


def _taken_by_another(store: Store, options: NodeOptions, seen: SeenStep | None) -> WorkerOutcome:
    """The node claimed nothing: record that the step which it went for has moved, if it has."""
    if seen is None:
        return idle("nothing was left to take: another process was faster, or a limit holds what waits")
    now_ms = _now_ms()
    with store.write():
        moved = record_taken(store.conn, seen, node_id=options.node_id or "node-local", now_ms=now_ms)
        found = conflicts_at(store.conn, now_ms) if moved else []
        epoch = cluster_epoch(store.conn)
    if moved is None:
        return idle("nothing was left to take: the step that was ready is gone, or held by a limit or a pause")
    from relaymesh.audit import AuditTrail
    from relaymesh.audit.event import conflict_records

    ours = [conflict for conflict in found if conflict.step_id == seen.step_id]
    AuditTrail(store.root, store.namespace).record_many(
        conflict_records(ours, actor=options.worker_id, cluster_epoch=epoch)
    )
    msg_id = f"msg_{seen.step_id}.{seen.lease_epoch + 1}"
    return WorkerOutcome(
        processed=True, task_id=seen.task_id, msg_id=msg_id, message=f"the step was already taken: {moved}"
    )


def outcomes(
    query: Callable[[str, Sequence[Any]], list[Any]], leases: Sequence[tuple[int, int]]
) -> list[WorkerOutcome]:
    """Return what became of each of these attempts, ``(row_id, lease_epoch)``, that ended; one query."""
    return [_outcome(*row) for row in query(_ENDED, (msgspec.json.encode(leases).decode(),))]


def _outcome(step_id: str | None, task_id: str | None, lease_epoch: int, *facts: Any) -> WorkerOutcome:
    if step_id is None:
        return WorkerOutcome(processed=True, task_id=None, msg_id=None, message="the step is unknown: its row is gone")
    message = _what_became(*facts)
    return WorkerOutcome(processed=True, task_id=task_id, msg_id=f"msg_{step_id}.{lease_epoch}", message=message)


def _what_became(
    is_newest: int,
    status: str,
    task_status: str,
    attempt: int,
    retry_at_ms: int | None,
    outcome: str | None,
    its_attempt: int | None,
    error: str | None,
    was_refused: int,
) -> str:
    """is_newest: nobody has claimed the step since, so its row still speaks of this attempt.

    outcome, its_attempt: from the list of attempts, which has those that failed or were lost.
    """
    number = its_attempt if its_attempt is not None else attempt
    due = f"due at {retry_at_ms}" if is_newest and retry_at_ms is not None else "due already"
    if is_newest and status == "CANCELLED":
        return "the task was cancelled"
    if was_refused:
        return "the result was refused: the lease was lost to another owner, or to a new cluster epoch"
    if outcome == "dead_lettered" or (is_newest and status == "DEAD_LETTER"):
        return f"attempt {number} failed and was the last: {error}"
    if outcome is not None:
        return f"attempt {number} failed, the next one is {due}: {error}"
    if is_newest and status == "SUCCESS":
        return "the task is complete" if task_status == "SUCCESS" else "the step is complete"
    if is_newest and status == "RETRYING":
        return f"the agent asked to be run again, the next attempt is {due}"
    return "the step was given back to the queue"
