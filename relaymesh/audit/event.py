"""What the store did, as audit rows: submits, attempts that ended, what maintenance took back.

Rows of which there is one per task or step are made from a template whose texts are known to hold no secret (ids, names
of agents, counts), so they cost no masking and no JSON encoder: some 2 µs, against 30 for any other row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from relaymesh.core.ident import trace_of
from relaymesh.view import MaintenanceOutcome
from relaymesh.wire.audit import Record, body_of, instant, quoted
from relaymesh.wire.store import FinishedStep, LeaseRef, NewTask

__all__ = ["Ended", "conflict_records", "ended_bodies", "lost_records", "maintenance_records", "submit_bodies"]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a commit made of attempts, by the row id of their steps.

    completed: steps that were the last open one of their task. ready: how many steps a success made ready.
    retried: steps that run again later. dead: steps that do not. refused: steps whose writer was fenced.
    """

    completed: frozenset[int] = frozenset()
    ready: Mapping[int, int] | None = None
    retried: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()


def submit_bodies(
    tasks: Sequence[NewTask],
    results: Sequence[tuple[str, bool]],
    *,
    namespace: str,
    actor: str,
    now_ms: int,
) -> list[str]:
    """Return one row for each task that was handed in; results: ``(task id, deduplicated)`` of each."""
    single = _opening("task.submit", actor, namespace, now_ms)
    workflow = _opening("workflow.submit", actor, namespace, now_ms)
    bodies = []
    for task, (task_id, deduplicated) in zip(tasks, results, strict=True):
        known = quoted(task_id)[1:-1]
        step = task.steps[0] if task.steps else None
        result = "deduplicated" if deduplicated else "submitted"
        # The task that holds the key has a trace of its own, which nobody has read.
        trace = "null" if deduplicated else quoted(task.trace_id)
        if step is not None and step.step_id == f"stp_{task.task_id[4:]}":
            message = "null" if deduplicated else quoted(f"msg_{step.step_id}.1")
            opening = single
            details = f'"agent":{quoted(step.agent_id)},"priority":{quoted(step.priority)},"msg_id":{message}'
        else:
            ready = sum(step.waiting_on == 0 for step in task.steps)
            opening = workflow
            details = f'"step_count":{len(task.steps)},"ready_steps":{ready}'
        bodies.append(
            f'{opening}task/{known}","result":"{result}","trace_id":{trace},"span_id":null,"task_id":"{known}"'
            f',"step_id":null,"details":{{{details}}},"prev_hash":"'
        )
    return bodies


def ended_bodies(
    steps: Sequence[FinishedStep],
    ended: Ended,
    traces: Mapping[str, str],
    *,
    namespace: str,
    now_ms: int,
    masked: frozenset[str] = frozenset(),
) -> list[str]:
    """Return one row for each attempt that ended, and one more for each whose writer was fenced.

    traces: by lease token, of tasks that brought a trace of their own.
    """
    bodies: list[str] = []
    openings: dict[str, str] = {}
    completed, ready, refused = ended.completed, ended.ready or {}, ended.refused
    for step in steps:
        lease = step.lease
        if step.report.kind != "succeeded" or lease.row_id in refused:
            records = _other(step, ended, traces)
            bodies += [body_of(record, namespace=namespace, now_ms=now_ms, masked=masked) for record in records]
            continue
        opening = openings.get(step.worker_id)
        if opening is None:
            opening = openings[step.worker_id] = _opening("step.execute", step.worker_id, namespace, now_ms)
        row_id, epoch = lease.row_id, lease.lease_epoch
        step_id, task_id = quoted(lease.step_id)[1:-1], quoted(lease.task_id)[1:-1]
        token = lease.lease_token
        trace = traces.get(token) or trace_of(lease.task_id)
        span = blake2b(token.encode("utf-8", "replace"), digest_size=8).hexdigest()
        result = "task_completed" if row_id in completed else "step_completed"
        bodies.append(
            f'{opening}step/{step_id}","result":"{result}","trace_id":"{trace}","span_id":"{span}"'
            f',"task_id":"{task_id}","step_id":"{step_id}","details":{{"msg_id":"msg_{step_id}.{epoch}"'
            f',"lease_epoch":{epoch},"cluster_epoch":{lease.cluster_epoch},"ready_steps":{ready.get(row_id, 0)}}}'
            ',"prev_hash":"'
        )
    return bodies


def lost_records(leases: Iterable[LeaseRef], *, error: str, worker_id: str) -> list[Record]:
    """Return a record for each attempt that ended with its worker process."""
    return [
        Record(
            "step.execute",
            worker_id,
            f"step/{lease.step_id}",
            "exception",
            {**_lease_details(lease), "agent": lease.agent_id, "attempt": lease.attempt, "error": error},
            lease.task_id,
            lease.step_id,
            trace_of(lease.task_id),
            _span_of(lease),
        )
        for lease in leases
    ]


def conflict_records(
    kind: str, leases: Iterable[LeaseRef], *, actor: str, reason: str, traces: Mapping[str, str] | None = None
) -> list[Record]:
    """Return a record for each lease whose writer was fenced. kind: an event type of the conflict table."""
    return [
        Record(
            "lease.conflict",
            actor,
            f"step/{lease.step_id}",
            kind,
            {**_lease_details(lease), "reason": reason},
            lease.task_id,
            lease.step_id,
            (traces or {}).get(lease.lease_token) or trace_of(lease.task_id),
            _span_of(lease),
        )
        for lease in leases
    ]


def maintenance_records(
    outcome: MaintenanceOutcome, *, actor: str = "maintenance", dead_nodes: Sequence[str] = ()
) -> list[Record]:
    """Return what one round of maintenance did; nothing when it did nothing."""
    done = outcome
    changed = (
        done.monotonic_reclaimed,
        done.dead_owner_reclaimed,
        done.wall_reclaimed,
        done.retry_messages_dispatched,
        done.dead_nodes_pruned,
        done.suspected_nodes_marked,
        done.dead_nodes_marked,
    )
    if not any(changed):
        return []
    records = []
    if done.dead_owner_reclaimed:
        details: dict[str, object] = {
            "dead_nodes": sorted(dead_nodes),
            "reclaimed": done.dead_owner_reclaimed,
            "retry_scheduled": done.dead_owner_retry_scheduled,
            "dead_lettered": done.dead_owner_dead_lettered,
        }
        records.append(Record("ownership.recover.dead_node", actor, "runtime/ownership", "recovered", details))
    details = {
        "lease_heartbeats": done.lease_heartbeats,
        "monotonic_reclaimed": done.monotonic_reclaimed,
        "dead_owner_reclaimed": done.dead_owner_reclaimed,
        "dead_owner_retry_scheduled": done.dead_owner_retry_scheduled,
        "dead_owner_dead_lettered": done.dead_owner_dead_lettered,
        "wall_reclaimed": done.wall_reclaimed,
        "retry_dispatched": done.retry_messages_dispatched,
        "mesh_nodes_pruned": done.dead_nodes_pruned,
        "node_id": done.node_id,
        "suspected_nodes_marked": done.suspected_nodes_marked,
        "dead_nodes_marked": done.dead_nodes_marked,
        "lease_report_generated": done.lease_report_generated,
    }
    return [*records, Record("maintenance.tick", actor, "runtime/maintenance", "ok", details)]


def _other(step: FinishedStep, ended: Ended, traces: Mapping[str, str]) -> list[Record]:
    """Return the records of an attempt that failed, was put off, or came too late."""
    lease, report = step.lease, step.report
    won = report.kind == "succeeded"
    details: dict[str, object] = {**_lease_details(lease), "agent": lease.agent_id, "attempt": lease.attempt}
    records: list[Record] = []
    if lease.row_id in ended.refused:
        result = "stale_lease_on_success" if won else "stale_lease"
        kind = "success_commit_conflict" if won else "failure_commit_conflict"
        records = conflict_records(kind, [lease], actor=step.worker_id, reason="fenced", traces=traces)
    elif report.kind == "snoozed":
        result, details["for_ms"] = "retry_scheduled", report.for_ms
    else:
        details["error"] = report.error
        if lease.row_id in ended.dead:
            result = "agent_not_found" if report.code == "agent_not_found" else "dead_lettered"
        else:
            # A step of a task that was cancelled meanwhile is closed, whatever it came to.
            result = "retry_scheduled" if lease.row_id in ended.retried else "exception"
    executed = Record(
        "step.execute",
        step.worker_id,
        f"step/{lease.step_id}",
        result,
        details,
        lease.task_id,
        lease.step_id,
        traces.get(lease.lease_token) or trace_of(lease.task_id),
        _span_of(lease),
    )
    return [executed, *records]


def _lease_details(lease: LeaseRef) -> dict[str, object]:
    return {
        "msg_id": f"msg_{lease.step_id}.{lease.lease_epoch}",
        "lease_epoch": lease.lease_epoch,
        "cluster_epoch": lease.cluster_epoch,
    }


def _span_of(lease: LeaseRef) -> str:
    # As relaymesh.agents.trace.span_id_of, which lies above this package.
    return blake2b(lease.lease_token.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _opening(action: str, actor: str, namespace: str, now_ms: int) -> str:
    return (
        f'{{"timestamp":"{instant(now_ms)}","namespace":{quoted(namespace)},"action":{quoted(action)}'
        f',"actor":{quoted(actor)},"principal_id":null,"resource":"'
    )
