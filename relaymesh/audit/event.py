"""What the store did, as audit rows: submits, attempts that ended, what maintenance took back.

Rows of which there is one per task or step are made from a template whose texts are known to hold no secret (ids, names
of agents, counts), so they cost no masking and no JSON encoder: some 2 µs, against 30 for any other row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from relaymesh.core.ident import trace_of
from relaymesh.node_view import MaintenanceOutcome
from relaymesh.wire.audit import Record, body_of, instant, quoted
from relaymesh.wire.store import SHAPE_SOLE, FinishedStep, LeaseRef, NewTask

if TYPE_CHECKING:
    from relaymesh.core.budget import Budget, BudgetScope, Purse
    from relaymesh.store.conflict import Conflict
    from relaymesh.store.schedule_fire import Fired

__all__ = [
    "Finished",
    "conflict_records",
    "death_record",
    "ended_bodies",
    "expiry_records",
    "fired_bodies",
    "fired_records",
    "lost_records",
    "maintenance_records",
    "recovery_record",
    "submit_bodies",
    "used_up_record",
]

_SPAN = blake2b(digest_size=8)
"""Copied for each row: to set one up takes a third of what such a short hash costs."""


class Finished(Protocol):
    """What a commit made of attempts, by lease token and task (``relaymesh.store.finish.FinishResult``)."""

    @property
    def fenced(self) -> frozenset[str]: ...
    @property
    def retried(self) -> frozenset[str]: ...
    @property
    def dead(self) -> frozenset[str]: ...
    @property
    def completed(self) -> frozenset[str]: ...
    @property
    def left_open(self) -> frozenset[str]: ...
    @property
    def ready(self) -> Mapping[str, int]: ...


class UsedUp(Protocol):
    """A budget, and what was spent of it (``relaymesh.store.budget.Row``)."""

    @property
    def scope(self) -> BudgetScope: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def budget(self) -> Budget: ...
    @property
    def purse(self) -> Purse: ...


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
    names: dict[str, str] = {}
    for task, (task_id, deduplicated) in zip(tasks, results, strict=True):
        step = task.steps[0]
        if step.shape == SHAPE_SOLE and not deduplicated:
            # Made by this package a moment ago: nothing in its ids needs escaping.
            agent = names.get(step.agent_id) or names.setdefault(step.agent_id, quoted(step.agent_id))
            bodies.append(
                f'{single}task/{task_id}","result":"submitted","trace_id":"{task.trace_id}","span_id":null'
                f',"task_id":"{task_id}","step_id":null,"details":{{"agent":{agent},"priority":"{step.priority}"'
                f',"msg_id":"msg_{step.step_id}.1"}},"prev_hash":"'
            )
            continue
        # The task that holds the key has a trace of its own, which nobody has read.
        trace = "null" if deduplicated else quoted(task.trace_id)
        known, result = quoted(task_id)[1:-1], "deduplicated" if deduplicated else "submitted"
        if step.shape == SHAPE_SOLE:
            opening = single
            details = f'"agent":{quoted(step.agent_id)},"priority":{quoted(step.priority)},"msg_id":null'
        else:
            opening = workflow
            details = f'"step_count":{len(task.steps)},"ready_steps":{sum(s.waiting_on == 0 for s in task.steps)}'
        bodies.append(
            f'{opening}task/{known}","result":"{result}","trace_id":{trace},"span_id":null,"task_id":"{known}"'
            f',"step_id":null,"details":{{{details}}},"prev_hash":"'
        )
    return bodies


def ended_bodies(
    steps: Sequence[FinishedStep],
    finished: Finished,
    traces: Mapping[str, str],
    *,
    actor: str,
    namespace: str,
    now_ms: int,
    masked: frozenset[str] = frozenset(),
) -> list[str]:
    """Return one row for each attempt that ended.

    traces: by lease token, of tasks that brought a trace of their own.
    """
    bodies: list[str] = []
    opening = _opening("step.execute", actor, namespace, now_ms)
    fenced, left_open = finished.fenced, finished.left_open
    # What follows from the steps of a task that one commit ended is told with the last of them.
    news = finished.completed.union(finished.ready)
    last = {step.lease.task_id: step for step in steps if step.lease.task_id in news} if news else {}
    # How a row of a single-step task ends: nearly all rows of a batch have the same epochs.
    ending, ends_epoch, ends_cluster_epoch = "", -1, -1
    for step in steps:
        lease = step.lease
        token, task, epoch = lease.lease_token, lease.task_id, lease.lease_epoch
        if step.report.kind != "succeeded" or token in fenced:
            record = _other(step, finished, traces, actor)
            bodies.append(body_of(record, namespace=namespace, now_ms=now_ms, masked=masked))
            continue
        digest = _SPAN.copy()  # as ``_span``, without the call
        digest.update(token.encode())
        span = digest.hexdigest()
        if lease.shape == SHAPE_SOLE:
            # Such a row was made by this package, so its ids are of our making: nothing in them needs escaping.
            step_id, cluster_epoch = lease.step_id, lease.cluster_epoch
            if epoch != ends_epoch or cluster_epoch != ends_cluster_epoch:
                ending, ends_epoch, ends_cluster_epoch = _ending(epoch, cluster_epoch, 0), epoch, cluster_epoch
            trace = (traces and traces.get(token)) or task[4:].replace("-", "")
            result = "task_completed" if task not in left_open else "step_completed"
            bodies.append(
                f'{opening}step/{step_id}","result":"{result}","trace_id":"{trace}","span_id":"{span}"'
                f',"task_id":"{task}","step_id":"{step_id}","details":{{"msg_id":"msg_{step_id}{ending}'
            )
            continue
        ready, result = 0, "step_completed"
        if last.get(task) is step:
            ready = finished.ready.get(task, 0)
            result = "task_completed" if task in finished.completed else result
        step_id, task_id = quoted(lease.step_id)[1:-1], quoted(task)[1:-1]
        trace = traces.get(token) or trace_of(task)
        bodies.append(
            f'{opening}step/{step_id}","result":"{result}","trace_id":"{trace}","span_id":"{span}"'
            f',"task_id":"{task_id}","step_id":"{step_id}"'
            f',"details":{{"msg_id":"msg_{step_id}{_ending(epoch, lease.cluster_epoch, ready)}'
        )
    return bodies


def _ending(epoch: int, cluster_epoch: int, ready: int) -> str:
    return f'.{epoch}","lease_epoch":{epoch},"cluster_epoch":{cluster_epoch},"ready_steps":{ready}}},"prev_hash":"'


def used_up_record(budget: UsedUp, *, actor: str) -> Record:
    """Return the record of a budget that has nothing left."""
    from relaymesh.core.budget_text import amount_text, period_text  # most roots have no budget

    scope, name, kind = str(budget.scope), budget.name, budget.kind
    details = {
        "scope": scope,
        "name": name,
        "kind": kind,
        "amount": amount_text(budget.budget.amount),
        "spent": amount_text(budget.purse.spent),
        "per": None if budget.budget.period_ms is None else period_text(budget.budget.period_ms),
    }
    task_id = name if scope == "task" else None
    return Record("budget.used_up", actor, "runtime/budgets", "used_up", details, task_id=task_id)


def lost_records(leases: Iterable[LeaseRef], *, error: str, actor: str) -> list[Record]:
    """Return a record for each attempt that ended with its worker process."""
    return [
        Record(
            "step.execute",
            actor,
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


def conflict_records(conflicts: Iterable[Conflict], *, actor: str, cluster_epoch: int) -> list[Record]:
    """Return two records for each refused write of a fenced owner: that it was, and who owns the step instead.

    The owner that the step has wins (``running_owner_wins``). A step that has none is nobody's: who was refused lost it
    and does not get it back (``nobody_owns``). A refused claim is one record more, that of the claim: it names the
    message that it would have taken, or that another has taken.
    """
    records = []
    for found in conflicts:
        step, trace_id = f"step/{found.step_id}", trace_of(found.task_id) if found.task_id else None
        epoch = found.expected_epoch
        if epoch is None:  # a claim: it expects none, and gives the step the next one
            epoch = (found.actual_epoch or 0) + (found.actual_status == "PENDING")
        message = {"msg_id": f"msg_{found.step_id}.{epoch}", "cluster_epoch": cluster_epoch}
        refused = {
            **message,
            "lease_epoch": found.expected_epoch,
            "reason": f"the step is {found.actual_status} at lease epoch {found.actual_epoch}",
        }
        decided = {
            **message,
            "candidate_owner": found.worker_id,
            "current_owner": found.actual_owner,
            "winner_owner": found.actual_owner,
            "rule": "running_owner_wins" if found.actual_owner else "nobody_owns",
            "actual_status": found.actual_status,
            "actual_lease_epoch": found.actual_epoch,
        }
        for action, result, details in (
            ("lease.conflict", found.event_type, refused),
            ("ownership.conflict.decision", "decided", decided),
        ):
            who = found.worker_id or actor if action == "lease.conflict" else actor
            records.append(Record(action, who, step, result, details, found.task_id, found.step_id, trace_id))
        if found.event_type == "claim_conflict":
            records.append(
                Record("worker.claim", actor, step, "stale", message, found.task_id, found.step_id, trace_id)
            )
    return records


def expiry_records(task_ids: Iterable[str], *, cluster_epoch: int) -> list[Record]:
    """Return a record for each task that was cancelled because its time was over."""
    details = {"mode": "soft", "reason": "expired", "cluster_epoch": cluster_epoch}
    return [
        Record("task.cancel", "maintenance", f"task/{task_id}", "cancelled", details, task_id) for task_id in task_ids
    ]


def recovery_record(node_id: str, *, reclaimed: int, retry_scheduled: int, dead_lettered: int) -> Record:
    """Return the record of a node that took back what its former self ran, or looked and found nothing."""
    details = {
        "limit": None,
        "dead_nodes": [node_id],
        "reclaimed": reclaimed,
        "retry_scheduled": retry_scheduled,
        "dead_lettered": dead_lettered,
    }
    return Record("ownership.recover", "runtime", "runtime/ownership", "recovered" if reclaimed else "noop", details)


def death_record(node_id: str, last_heard_ms: int) -> Record:
    """Return the record of a node that ended without a word: rows of its last moments may be missing."""
    details = {"lost": None, "since_ms": last_heard_ms, "cause": "node_died", "node_id": node_id}
    return Record("audit.gap", "system", "runtime/audit", "possible", details)


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


def _other(step: FinishedStep, finished: Finished, traces: Mapping[str, str], actor: str) -> Record:
    """Return the record of an attempt that failed, was put off, or came too late."""
    lease, report = step.lease, step.report
    token = lease.lease_token
    details: dict[str, object] = {**_lease_details(lease), "agent": lease.agent_id, "attempt": lease.attempt}
    if token in finished.fenced:
        result = "stale_lease_on_success" if report.kind == "succeeded" else "stale_lease"
    elif report.kind == "snoozed":
        result, details["for_ms"] = "retry_scheduled", report.for_ms
    else:
        details["error"] = report.error
        if token in finished.dead:
            result = "agent_not_found" if report.code == "agent_not_found" else "dead_lettered"
        else:
            result = "retry_scheduled" if token in finished.retried else "exception"
    return Record(
        "step.execute",
        actor,
        f"step/{lease.step_id}",
        result,
        details,
        lease.task_id,
        lease.step_id,
        traces.get(token) or trace_of(lease.task_id),
        _span_of(lease),
    )


def _lease_details(lease: LeaseRef) -> dict[str, object]:
    return {
        "msg_id": f"msg_{lease.step_id}.{lease.lease_epoch}",
        "lease_epoch": lease.lease_epoch,
        "cluster_epoch": lease.cluster_epoch,
    }


def _span_of(lease: LeaseRef) -> str:
    # As relaymesh.agents.trace.span_id_of, which lies above this package.
    return _span(lease.lease_token)


def _span(token: str) -> str:
    digest = _SPAN.copy()
    digest.update(token.encode())
    return digest.hexdigest()


def _opening(action: str, actor: str, namespace: str, now_ms: int) -> str:
    return (
        f'{{"timestamp":"{instant(now_ms)}","namespace":{quoted(namespace)},"action":{quoted(action)}'
        f',"actor":{quoted(actor)},"principal_id":null,"resource":"'
    )


def fired_bodies(
    ticks: Sequence[Fired], *, namespace: str, actor: str, now_ms: int, masked: frozenset[str] = frozenset()
) -> list[str]:
    """Return the rows of the tasks that ticks of schedules became, and those of what became of each tick."""
    stored = [(tick.task, tick.stored) for tick in ticks if tick.task is not None and tick.stored is not None]
    bodies = submit_bodies(
        [task for task, _ in stored],
        [answer for _, answer in stored],
        namespace=namespace,
        actor=actor,
        now_ms=now_ms,
    )
    records = fired_records(ticks, actor=actor)
    return bodies + [body_of(record, namespace=namespace, now_ms=now_ms, masked=masked) for record in records]


def fired_records(ticks: Iterable[Fired], *, actor: str) -> list[Record]:
    """Return a record for each tick of a schedule, or span of ticks that was passed over, that was decided about."""
    return [
        Record(
            "schedule.fire",
            actor,
            f"schedule/{tick.name}",
            tick.result,
            {
                "tick": instant(tick.tick_ms),
                **({"until": instant(tick.until_ms)} if tick.until_ms is not None else {}),
                **({"reason": tick.reason} if tick.reason else {}),
            },
            task_id=tick.stored[0] if tick.stored is not None else None,
        )
        for tick in ticks
    ]
