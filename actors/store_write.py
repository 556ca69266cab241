"""The transaction of the StoreActor: everything that a batch carries, in a fixed order, and the claim for free slots.

It changes the database only; what is to be told to others comes back as a ``Done``, and is told after the commit.
"""

from __future__ import annotations

from typing import Final

from actors.address import Address
from actors.audit_rows import AuditRowsOf
from actors.members import OwnStanding, round_of_members
from actors.store_batch import Batch, Done
from actors.store_claim import Claims
from actors.store_look import Looks
from actors.store_needs import NodeFacts, StoreNeeds
from relaymesh.store.alert import save_alerts
from relaymesh.store.mesh import write_members
from relaymesh.store.payload import Stored
from relaymesh.store.store import Store
from relaymesh.store.submit import is_direct
from relaymesh.wire.store import CutSteps, MaintenanceDone, Renewed, RunMaintenance, StoreAnswer

__all__ = ["PROMOTE_MAX", "Writer"]

PROMOTE_MAX: Final = 512
BUCKETS_PER_HEARTBEAT: Final = 500


class Writer:
    """Writes the batches of one StoreActor."""

    def __init__(
        self,
        facts: NodeFacts,
        needs: StoreNeeds,
        queue: Address,
        lease: Address,
        claims: Claims,
        looks: Looks,
        standing: OwnStanding,
        audit: AuditRowsOf,
    ) -> None:
        self._facts = facts
        self._needs = needs
        self._queue = queue
        self._lease = lease
        self._claims = claims
        self._looks = looks
        self._standing = standing
        self._audit = audit

    def apply(
        self,
        store: Store,
        batch: Batch,
        spilled: dict[str, Stored],
        groups: list[tuple[str, str]] | None,
        *,
        due: bool,
    ) -> Done:
        """Write all of ``batch`` and claim; called within a write transaction.

        spilled: outputs that were written to files. groups: what was ready a moment ago, if that was asked. due: so is
        something that time brings.
        """
        done = Done()
        now_ms = self._needs.now_ms()
        audit, facts, claims = self._audit, self._facts, self._claims
        audit.begin(now_ms)
        if store.used_up:
            store.take_used_up()  # of a transaction that failed
        tasks = [task for message, _ in batch.submits for task in message.tasks]
        straight = bool(tasks) and all(map(is_direct, tasks)) and claims.may_claim()
        if tasks and not straight:
            self._answer_submits(done, batch, store.submit(tasks, now_ms=now_ms))
        if batch.finished:
            finished = store.finish(
                batch.finished, node_id=facts.node_id, spilled=spilled, policy_of=facts.policy_of, now_ms=now_ms
            )
            done.ready |= finished.released
            done.due_changed |= finished.due_at_ms is not None
            done.ended += [step.lease for step in batch.finished]
            done.refused = finished.refused
            audit.finished(batch.finished, finished)
        self._take_back(store, batch, done, now_ms)
        if batch.take_over:
            # After the results: what ended before the former queue crashed need not run again.
            self._take_over(store, done, now_ms)
        self._keep_alive(store, batch, done, now_ms)
        if store.used_up:
            audit.used_up(store.take_used_up())
        self._look_after(store, batch, done, now_ms)
        if due:
            store.promote_due(now_ms=now_ms, limit=PROMOTE_MAX)
            audit.fired(store.fire_due(now_ms=now_ms))
            done.ready = done.due_changed = True
        # What the queue gives back is free in its books already, or never was taken there: its demand says so.
        given_back = {id(lease) for released in batch.released for lease in released.leases}
        ended = [facts.pools.get(lease.agent_id, "") for lease in done.ended if id(lease) not in given_back]
        done.free = claims.demand.with_ended(ended)
        if straight:
            # As an idle node finds it: what was ready went with the last claim, and nobody has committed since.
            news = not claims.nothing_left or done.ready or bool(done.ended)
            nothing_waits = not news and store.state.nobody_else_since(self._looks.data_version)
            results, done.claim = claims.submit_and_claim(store, tasks, done.free, now_ms, nothing_waits=nothing_waits)
            self._answer_submits(done, batch, results)
        elif claims.may_claim() and (done.ready or claims.maybe_ready or claims.makes_room(done.ended)):
            done.claim = claims.claim(store, done.free, groups, now_ms)
        audit.end(store)
        return done

    def _answer_submits(self, done: Done, batch: Batch, results: list[tuple[str, bool]]) -> None:
        start = 0
        for message, reply in batch.submits:
            end = start + len(message.tasks)
            ours = tuple(results[start:end])
            done.answers.append((reply, StoreAnswer(ours, self._audit.submitted(message, ours))))
            start = end
        done.ready = done.due_changed = True

    def _take_back(self, store: Store, batch: Batch, done: Done, now_ms: int) -> None:
        """Write what ended without a result."""
        facts, audit = self._facts, self._audit
        for released in batch.released:
            given_up = store.release(released.leases, worker_id=facts.node_id, now_ms=now_ms)
            audit.conflicts |= given_up != len(released.leases)
            done.ready = True
            done.ended += released.leases
        for lost in batch.lost:
            store.lose_attempts(
                lost.leases, error=lost.error, worker_id=lost.worker_id, policy_of=facts.policy_of, now_ms=now_ms
            )
            audit.lost(lost)
            done.due_changed = True
            done.ended += lost.leases

    def _take_over(self, store: Store, done: Done, now_ms: int) -> None:
        facts = self._facts
        self._claims.demand.withdraw()
        died = self._needs.current_generation() == 0
        if died:
            self._audit.before_start(store)
        generation = store.register_node(
            facts.node_id,
            pid=facts.pid,
            host=facts.host,
            agents=facts.agents,
            now_ms=now_ms,
            patience=self._needs.member_rules().patience,
        )
        # An actor that was started anew in this process says nothing about the steps that ran: only a death counts.
        requeued = store.requeue_former_generation(
            node_id=facts.node_id,
            generation=generation,
            policy_of=facts.policy_of,
            now_ms=now_ms,
            died=died,
        )
        self._audit.took_over(requeued)
        self._standing.registered(store)
        store.state.claims_as = facts.node_id
        self._claims.generation = done.generation = generation
        done.ready = done.due_changed = True
        done.requeued = requeued.reclaimed

    def _keep_alive(self, store: Store, batch: Batch, done: Done, now_ms: int) -> None:
        """Renew the leases of what runs, and charge what it has spent."""
        for renewal in batch.renewals:
            gone = set(store.renew(renewal.leases, progress=renewal.progress, now_ms=now_ms))
            kept = tuple(lease[0] for lease in renewal.leases if lease[0] not in gone)
            lost_leases = tuple((lease[0], lease[2]) for lease in renewal.leases if lease[0] in gone)
            cancelled = store.cancel_reasons(gone) if gone else ()
            done.tells.append((self._lease, Renewed(kept, lost_leases, renewal.asked_at_ns, cancelled=cancelled)))
            done.renewed += len(kept)
        if batch.spent:
            cuts = store.spend(batch.spent, now_ms=now_ms)
            if cuts:
                done.tells.append((self._queue, CutSteps(cuts)))

    def _look_after(self, store: Store, batch: Batch, done: Done, now_ms: int) -> None:
        """Write what the node says of itself, of other nodes and of the root."""
        if batch.paused:
            self._standing.record(store, self._audit)
        for node in batch.nodes:
            # A heartbeat that was on its way while we took over from ourselves says nothing about others.
            ours = node.generation == self._claims.generation
            if ours and not self._standing.beat(store, node, self._audit, now_ms):
                self._needs.lost_generation()
            store.forget_buckets(now_ms=now_ms, limit=BUCKETS_PER_HEARTBEAT)
            store.latencies.count()
            store.latencies.forget(now_ms)
        for order, reply in batch.maintenance:
            done.answers.append((reply, self._maintain(store, order, now_ms)))
            done.ready = done.due_changed = True
        for alerts, reply in batch.alerts:
            taken = save_alerts(
                store.conn, alerts.states, over_version=alerts.over_version, fired=alerts.fired, now_ms=now_ms
            )
            done.answers.append((reply, taken))
        for members, reply in batch.members:
            done.answers.append((reply, write_members(store.conn, members, now_ms=now_ms)))

    def _maintain(self, store: Store, order: RunMaintenance, now_ms: int) -> MaintenanceDone:
        policy_of = self._facts.policy_of
        expired = store.reclaim(order.expired, cause="lease_expired", policy_of=policy_of, now_ms=now_ms)
        dead = store.reclaim(order.dead, cause="owner_dead", policy_of=policy_of, now_ms=now_ms)
        if order.clock_set_back:
            store.restart_waits(now_ms=now_ms)
        expired_tasks = store.expire_tasks(now_ms=now_ms, limit=PROMOTE_MAX)
        members = round_of_members(store, order, self._needs.member_rules(), now_ms)
        self._audit.maintained(order, expired, dead, expired_tasks, members)
        return MaintenanceDone(
            expired_reclaimed=expired.reclaimed,
            dead_reclaimed=dead.reclaimed,
            promoted=0,
            expired_tasks=len(expired_tasks),
            suspected=len(members.marked.suspected),
            dead=len(members.marked.dead),
            pruned=len(members.pruned),
        )
