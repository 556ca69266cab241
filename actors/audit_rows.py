"""What one transaction of the StoreActor comes to in the audit log.

It is collected while the transaction runs, made into rows once it has committed and everybody has been told, and handed
in at the AuditDesk; the rows of a small one are made there, when they are written. What was collected for a transaction
that failed is forgotten with the next one. New tasks are among it if their sender asked for that; the others are
recorded by who submits them, once the answer is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from relaymesh.audit.event import (
    conflict_records,
    death_record,
    ended_bodies,
    expiry_records,
    fired_bodies,
    lost_records,
    maintenance_records,
    recovery_record,
    submit_bodies,
    used_up_record,
)
from relaymesh.audit.member import MemberRound, held_back_record, pause_record
from relaymesh.audit.trail import spans_wanted
from relaymesh.core.mask import field_names
from relaymesh.node_view import MaintenanceOutcome
from relaymesh.store.admin import cluster_epoch
from relaymesh.store.conflict import conflicts_at
from relaymesh.store.finish import FinishResult
from relaymesh.store.recover import Reclaimed
from relaymesh.store.store import Store
from relaymesh.wire.audit import Record, body_of
from relaymesh.wire.store import AttemptLost, FinishedStep, Grant, RunMaintenance, SubmitTasks

if TYPE_CHECKING:
    from relaymesh.store.budget import Row
    from relaymesh.store.schedule_fire import Fired

__all__ = ["ACTOR_CHARS_MAX", "TRACES_MAX", "AuditRowsOf", "Desk"]

TRACES_MAX = 65_536
"""Running steps whose task brought a trace of its own; beyond, the oldest are recorded under the task's digits."""
ACTOR_CHARS_MAX = 256
"""Of the name of who hands tasks over; who has a longer one records them himself."""
LATER_ROWS_MAX = 4
"""Rows of a transaction that are made by who writes them; the rows of a larger one are made at once."""
LATER_CHARS_MAX = 65_536
"""Characters of inputs and outputs that are held for it."""


class Desk(Protocol):
    """Where finished rows go."""

    def offer(self, bodies: Sequence[str]) -> None: ...
    def offer_later(self, count: int, make: Callable[[], Sequence[str]]) -> bool: ...
    def died(self, last_heard_ms: int, now_ms: int) -> None: ...


class AuditRowsOf:
    """The rows of one node's commits.

    actor: who the log says ran the steps. masked_fields: more names of fields whose values are secret.
    conflicts: something was refused, so the table of conflicts has rows.
    """

    def __init__(
        self, desk: Desk | None, namespace: str, node_id: str, actor: str, masked_fields: Sequence[str] = ()
    ) -> None:
        self._desk = desk
        self._namespace = namespace
        self._node_id = node_id
        self._actor = actor
        self._masked = field_names(masked_fields)
        self._spans = spans_wanted()
        self._traces: dict[str, str] = {}
        self._former_died = False
        self.begin(0)

    def begin(self, now_ms: int) -> None:
        """A transaction begins."""
        self._now_ms = now_ms
        self._submitted: list[tuple[SubmitTasks, Sequence[tuple[str, bool]]]] = []
        self._finished: list[tuple[Sequence[FinishedStep], FinishResult]] = []
        self._records: list[Record] = []
        self._expired: list[str] = []
        self._fired: Sequence[Fired] = ()
        self._died_ms: int | None = None
        self.conflicts = False

    def remember_trace(self, grant: Grant) -> None:
        """A step was claimed whose task came with a trace context."""
        self._traces[grant.lease.lease_token] = grant.traceparent[3:35]
        if len(self._traces) > TRACES_MAX:
            del self._traces[next(iter(self._traces))]

    def submitted(self, message: SubmitTasks, results: Sequence[tuple[str, bool]]) -> bool:
        """Tasks were stored; return whether they will be recorded here."""
        if self._desk is None or not 0 < len(message.actor) <= ACTOR_CHARS_MAX:
            return False
        self._submitted.append((message, results))
        return True

    def finished(self, steps: Sequence[FinishedStep], result: FinishResult) -> None:
        """Attempts ended."""
        self._finished.append((steps, result))
        self.conflicts |= bool(result.refused)

    def lost(self, message: AttemptLost) -> None:
        """Attempts ended with their worker process."""
        self._records += lost_records(message.leases, error=message.error, actor=self._actor)
        self.conflicts = True

    def used_up(self, budgets: Sequence[Row]) -> None:
        """Budgets have nothing left."""
        self._records += [used_up_record(budget, actor=self._actor) for budget in budgets]

    def before_start(self, store: Store) -> None:
        """The node is about to take a new generation: whether its former self said goodbye is still to be seen."""
        row = store.conn.execute(
            "SELECT last_heartbeat_ms FROM mesh_nodes WHERE node_id=? AND status<>'LEFT' AND host IS NOT NULL",
            (self._node_id,),
        ).fetchone()
        self._former_died = row is not None
        if row is not None:
            self._died_ms = int(row[0])
            self._records.append(death_record(self._node_id, self._died_ms))

    def took_over(self, requeued: Reclaimed) -> None:
        """The node took back what its former self ran; one that had died may have left nothing."""
        if requeued.reclaimed or self._former_died:
            self._records.append(
                recovery_record(
                    self._node_id,
                    reclaimed=requeued.reclaimed,
                    retry_scheduled=requeued.retry_scheduled,
                    dead_lettered=requeued.dead_lettered,
                )
            )
        self._former_died = False

    def held_back(self, status: str) -> None:
        """A heartbeat of this node was heard, and its dwell time kept it from being ALIVE again."""
        self._records.append(held_back_record(self._node_id, status))

    def paused(self, status: str, reason: str, total: int) -> None:
        """The worker takes nothing from now on. total: how often that was, of all nodes of the root."""
        self._records.append(pause_record(self._node_id, status, reason, total, actor=self._actor))

    def maintained(
        self,
        order: RunMaintenance,
        expired: Reclaimed,
        dead: Reclaimed,
        expired_tasks: Sequence[str],
        members: MemberRound,
    ) -> None:
        """Steps were taken from owners that died or went silent, members were judged, tasks cancelled as too late."""
        outcome = MaintenanceOutcome(
            node_id=self._node_id,
            suspected_nodes_marked=len(members.marked.suspected),
            dead_nodes_marked=len(members.marked.dead),
            dead_nodes_pruned=len(members.pruned),
            dead_owner_reclaimed=dead.reclaimed,
            dead_owner_retry_scheduled=dead.retry_scheduled,
            dead_owner_dead_lettered=dead.dead_lettered,
            wall_reclaimed=expired.reclaimed,
            wall_retry_scheduled=expired.retry_scheduled,
            wall_dead_lettered=expired.dead_lettered,
        )
        if members.prune_record is not None:
            self._records.append(members.prune_record)
        self._records += maintenance_records(outcome, dead_nodes=sorted({lease.owner for lease in order.dead}))
        self._expired = list(expired_tasks)
        self.conflicts |= expired.reclaimed + dead.reclaimed != len(order.expired) + len(order.dead)

    def fired(self, ticks: Sequence[Fired]) -> None:
        """Schedules were due: what became of each tick, and the tasks that were stored for it."""
        self._fired = ticks

    def end(self, store: Store) -> None:
        """The statements have run; what is in the tables only is read now, within the transaction."""
        if self._desk is None or not (self.conflicts or self._expired):
            return
        epoch = cluster_epoch(store.conn)
        if self.conflicts:
            found = conflicts_at(store.conn, self._now_ms)
            self._records += conflict_records(found, actor=self._actor, cluster_epoch=epoch)
        self._records += expiry_records(self._expired, cluster_epoch=epoch)

    def hand_in(self) -> None:
        """It has committed."""
        desk = self._desk
        if desk is None:
            return
        make = self._maker()
        few = self._few()
        if few is None or not desk.offer_later(few, make):
            desk.offer(make())
        if self._died_ms is not None:
            desk.died(self._died_ms, self._now_ms)
        self.begin(self._now_ms)

    def _few(self) -> int | None:
        """Return how many rows a small transaction has: the result of its only step, which is next, need not wait until
        they are made. None when there are more, or more in them than should be held."""
        if self._records or self._fired:
            return None
        count = sum(len(message.tasks) for message, _ in self._submitted)
        count += sum(len(finished) for finished, _ in self._finished)
        if count > LATER_ROWS_MAX:
            return None
        tasks = [task for message, _ in self._submitted for task in message.tasks]
        steps = [step for finished, _ in self._finished for step in finished]
        payloads = sum(len(step.payload or "") for task in tasks for step in task.steps)
        if payloads + sum(len(step.report.output) for step in steps) > LATER_CHARS_MAX:
            return None
        return count

    def _maker(self) -> Callable[[], Sequence[str]]:
        """Return what makes the rows of this transaction, in whatever thread."""
        namespace, actor, now_ms, masked = self._namespace, self._actor, self._now_ms, self._masked
        submitted, finished, records, fired = self._submitted, self._finished, self._records, self._fired
        spans = self._spans
        traces: dict[str, str] = {}
        if self._traces:
            tokens = {step.lease.lease_token for steps, _ in finished for step in steps}
            traces = {token: self._traces.pop(token) for token in tokens & self._traces.keys()}

        def make() -> Sequence[str]:
            bodies: list[str] = []
            if fired:
                bodies += fired_bodies(fired, namespace=namespace, actor="runtime", now_ms=now_ms, masked=masked)
            for message, results in submitted:
                bodies += submit_bodies(message.tasks, results, namespace=namespace, actor=message.actor, now_ms=now_ms)
            for steps, result in finished:
                ended = ended_bodies(
                    steps, result, traces, actor=actor, namespace=namespace, now_ms=now_ms, masked=masked
                )
                bodies += _timed(steps, ended) if spans else ended
            bodies += [body_of(record, namespace=namespace, now_ms=now_ms, masked=masked) for record in records]
            return bodies

        return make


def _timed(steps: Sequence[FinishedStep], bodies: Sequence[str]) -> list[str]:
    """Return the rows of attempts with the times of these, for their spans."""
    from relaymesh.audit.span_file import timed

    return [
        timed(body, step.report.started_at_ms, step.report.finished_at_ms)
        for step, body in zip(steps, bodies, strict=True)
    ]
