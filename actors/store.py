"""StoreActor: the only writer of the database in a process, committing in groups.

    mail ──▶ collect ──(mailbox empty, or batch full)──▶ BEGIN; everything; claim for free slots; COMMIT ──▶ answers

Whatever waits in the mailbox goes into one transaction, and everybody is answered after its commit. The standing demand
of the queue is served in the same transaction, so what a commit makes ready is claimed without another. When the disk
refuses, who asked gets the error, and what must not be lost (results, released steps) is kept and tried again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from actors.about import about
from actors.address import Address
from actors.audit_rows import AuditRowsOf, Desk
from actors.base import Actor
from actors.members import OwnStanding, round_of_members
from actors.store_batch import Batch, Done
from actors.store_look import Looks
from actors.store_needs import NodeFacts, StoreNeeds
from actors.timer import Timers
from relaymesh.core.demand import Standing
from relaymesh.core.fairness import Fairness
from relaymesh.core.outcome import Failed
from relaymesh.errors import InputError, RelayMeshError
from relaymesh.store.alert import save_alerts
from relaymesh.store.claim import Claim, Slots
from relaymesh.store.counter import LOW_STARVATION
from relaymesh.store.error import StoreDefectError
from relaymesh.store.mesh import write_members
from relaymesh.store.payload import Stored
from relaymesh.store.store import Store
from relaymesh.store.submit import is_direct
from relaymesh.wire.mesh import WriteMembers
from relaymesh.wire.store import (
    AttemptLost,
    Claimed,
    Committed,
    CutSteps,
    Demand,
    FinishedStep,
    FinishSteps,
    Grant,
    LeaseRef,
    LocalVerdict,
    MaintenanceDone,
    NewTask,
    PollStore,
    ReleaseSteps,
    Renewed,
    RenewLeases,
    RunMaintenance,
    SpendSteps,
    StoreAnswer,
    StoreChanged,
    SubmitTasks,
    TakeOver,
    TookOver,
    VerifyLeases,
    WithdrawDemand,
    Withdrawn,
    WriteAlerts,
    WriteNode,
)
from relaymesh.wire.work import StepReport

__all__ = ["CLAIM_MAX", "StoreActor"]

log = logging.getLogger("relaymesh.store")

CLAIM_MAX = 1024
"""Steps per claim. A larger batch makes a commit cheaper per step and everybody else wait longer."""
CLAIM_CHARS_MAX = 16 * 1024 * 1024
"""Payload characters per claim, exceeded by one payload at most: what a claim holds is in memory several times."""
BATCH_MESSAGES_MAX = 256
BATCH_STEPS_MAX = 512
"""Tasks and results after which a transaction is written: some 50 ms, for which everybody else who writes waits."""
BATCH_CHARS_MAX = 32 * 1024 * 1024
"""Output characters that one transaction collects before it is written."""
# How long a refused write waits before it is tried again: the disk may be full for hours.
RETRY_NS = (100_000_000, 250_000_000, 500_000_000, 1_000_000_000)
PROMOTE_MAX = 512
LOGGED_PER_COMMIT_MAX = 20
"""Failed attempts of one commit that are logged one by one; the rest is counted in one line."""
BUCKETS_PER_HEARTBEAT = 500
ROOM_NS_MAX = 60_000_000_000
"""The longest wait for the room that a rate gives: the clock may be set meanwhile."""
CHECKPOINT_NS = 30_000_000_000


class StoreActor(Actor):
    """See the module."""

    takes = (
        SubmitTasks
        | Demand
        | WithdrawDemand
        | FinishSteps
        | ReleaseSteps
        | AttemptLost
        | RenewLeases
        | SpendSteps
        | PollStore
        | TakeOver
        | WriteNode
        | RunMaintenance
        | VerifyLeases
        | WriteAlerts
        | WriteMembers
        | LocalVerdict
    )

    def __init__(
        self,
        facts: NodeFacts,
        needs: StoreNeeds,
        timers: Timers,
        queue: Address,
        lease: Address,
        audit: Desk | None = None,
    ) -> None:
        super().__init__()
        self._audit = AuditRowsOf(audit, facts.namespace, facts.node_id, facts.worker_id, facts.masked_fields)
        self._facts = facts
        self._needs = needs
        self._timers = timers
        self._queue = queue
        self._lease = lease
        self._batch = Batch()
        self._steps = self._chars = 0
        self._looks = Looks(timers)
        self._demand = Standing()
        self._claim_max = CLAIM_MAX
        self._generation = 0
        self._standing = OwnStanding(facts.node_id, needs.member_rules, needs.paused)
        self._maybe_ready = True
        # Somebody told us of a commit since the last look, and whether the last such word brought work for us.
        self._hinted = False
        self._hints_pay = True
        self._data_version = -1
        # The last claim left something to a limit, so the end of any step may make room; when a rate does by itself.
        self._held = False
        self._room_at_ns: int | None = None
        self._due_ms: int | None = None
        self._due_known = False
        # A schedule has a tick that waits for the end of the run before it.
        self._tick_queued = False
        self._leases_unverified = False
        self._verify_at_ns = 0
        self._failures = 0
        self._retry_at_ns = 0
        self._checkpoint_at_ns = 0
        self._wrote = False

    def started(self) -> None:
        self._store = Store.open(
            self._facts.root,
            namespace=self._facts.namespace,
            now_ms=self._needs.now_ms(),
            durability=self._facts.durability,
        )
        self._store.counts_later = self._store.remembers_state = True
        self._make_room()
        self._looks.begin(self.address)
        self._checkpoint_at_ns = self._timers.now_ns() + CHECKPOINT_NS

    def _make_room(self) -> None:
        try:
            self._store.make_room_in_log()
        except RelayMeshError as error:
            log.info("the log is not made longer (%s): %s", error.code, error)  # commits do it, a little slower

    def stopping(self) -> None:
        self._looks.end()
        self._retry_at_ns = 0
        self._flush()
        while self._batch.writes and not self._retry_at_ns:
            self._flush()
        with contextlib.suppress(RelayMeshError), self._store.write():
            self._store.count_latencies()
        self._store.close()

    def crashed(self) -> None:
        if hasattr(self, "_store"):
            self._store.close()

    def receive(self, message: Any) -> None:
        batch = self._batch
        batch.messages += 1
        match message:
            case FinishSteps(steps):
                batch.finished.extend(steps)
                self._steps += len(steps)
                self._chars += sum(len(step.report.output) for step in steps)
            case SubmitTasks(tasks, _):
                batch.submits.append((message, self.reply_later()))
                self._steps += len(tasks)
            case Demand():
                self._take_demand(message)
            case RenewLeases():
                batch.renewals.append(message)
            case SpendSteps(attempts):
                batch.spent.extend(attempts)
            case PollStore(hint):
                if hint:
                    self._maybe_ready = self._hinted = True  # the rest has time until the next look of our own
                    self._looks.stir()
                else:
                    self._poll()
            case ReleaseSteps():
                batch.released.append(message)
            case AttemptLost():
                batch.lost.append(message)
            case WriteNode():
                batch.nodes.append(message)
            case RunMaintenance():
                batch.maintenance.append((message, self.reply_later()))
            case WriteAlerts():
                batch.alerts.append((message, self.reply_later()))
            case WriteMembers():
                batch.members.append((message, self.reply_later()))
            case TakeOver():
                batch.take_over = True
            case VerifyLeases(leases):
                self._verify(leases)
            case LocalVerdict():
                self._heed(began=self._standing.judged(message))
            case WithdrawDemand():
                self._demand.withdraw()
                self._queue.tell(Withdrawn(self._demand.number))
        if batch.messages >= BATCH_MESSAGES_MAX or self._steps >= BATCH_STEPS_MAX or self._chars >= BATCH_CHARS_MAX:
            self._flush()

    def went_idle(self) -> None:
        self._flush()
        # What a claim left to do (input that could not be had, more than fits), and slots that its limit left free.
        while self._left_to_do() and self.mailbox_empty():
            self._flush()
        # Also when the worker is paused: who asks for one step only waits for an answer.
        if self._demand.once and self._demand.stands and self._generation > 0 and not self._retry_at_ns:
            self._tell_grants((), (), self._demand.state, 0)

    def _left_to_do(self) -> bool:
        return not self._retry_at_ns and (self._batch.writes or (self._maybe_ready and self._may_claim()))

    # What is due, or came from outside.

    def _poll(self) -> None:
        try:
            self._look()
        except RelayMeshError as error:
            self._rest(error, "could not be read")

    def _verify(self, leases: tuple[tuple[int, int], ...]) -> None:
        try:
            lost = self._store.lost_leases(leases, node_id=self._facts.node_id)
            cancelled = self._store.cancel_reasons(row_id for row_id, _ in lost) if lost else ()
        except RelayMeshError as error:
            self._rest(error, "could not be read")
            return
        if lost:
            self._lease.tell(Renewed((), lost, 0, cancelled=cancelled))

    def _look(self) -> None:
        with self._store.reading():
            version = self._store.data_version()
        now_ns = self._timers.now_ns()
        if self._room_at_ns is not None and now_ns >= self._room_at_ns:
            self._room_at_ns = None
            self._maybe_ready = True
        news = version != self._data_version
        if news:
            self._data_version = version
            self._maybe_ready = True
            self._due_known = False
            self._leases_unverified = True
            if self._generation:
                self._heed(began=self._standing.look(self._store))
        if self._leases_unverified and now_ns >= self._verify_at_ns:
            self._leases_unverified = False
            self._verify_at_ns = now_ns + VERIFY_NS
            self._lease.tell(StoreChanged())
        if not self._due_known:
            self._due_ms = self._store.next_due_ms()
            self._tick_queued = self._store.has_queued_tick()
            self._due_known = True
        self._looks.looked(news, None if self._due_ms is None else self._due_ms - self._needs.now_ms())
        if now_ns >= self._checkpoint_at_ns:
            self._checkpoint_at_ns = now_ns + CHECKPOINT_NS
            # Cutting a long log waits for nobody, but others may wait for it: only while nothing is going on.
            self._store.checkpoint(idle=not self._wrote)
            self._wrote = False

    # The transaction.

    def _flush(self) -> None:
        asked = self._batch.submits or self._batch.maintenance or self._batch.alerts or self._batch.members
        if not asked and self._retry_at_ns > self._timers.now_ns():
            return  # the disk refused a moment ago; nobody waits for an answer, so let it rest
        batch = self._batch
        if not (batch.writes or self._is_due() or (self._maybe_ready and self._may_claim())):
            batch.messages = 0  # a look that found nothing, as an idle node makes a dozen times a second
            return
        self._batch, self._steps, self._chars = Batch(), 0, 0
        self._commit(batch)

    def _is_due(self) -> bool:
        return self._due_ms is not None and self._due_ms <= self._needs.now_ms()

    def _commit(self, batch: Batch) -> None:
        due = self._is_due()
        asked_at_ns = self._timers.now_ns()
        hinted, self._hinted = self._hinted, False
        try:
            groups = None
            if not batch.writes and not due and not (hinted and self._hints_pay and self._may_claim()):
                groups = self._ready_groups()
                if not groups:
                    return
            spilled = self._store.spill_outputs(batch.finished)
            began_ns = self._timers.now_ns()
            with self._store.write():
                done = self._apply(batch, spilled, groups, due=due)
        except RelayMeshError as error:
            self._needs.refused()
            self._failed(batch, error)
            return
        claimed = done.claim.rows if done.claim is not None else ()
        spent_ns = self._timers.now_ns() - began_ns
        self._failures = self._retry_at_ns = 0
        self._wrote = True
        if batch.nodes or batch.take_over:
            self._heed(began=self._standing.settle())
        if claimed or done.due_changed or batch.size > len(batch.nodes):
            self._looks.stir()
        if hinted and done.claim is not None:
            self._hints_pay = bool(done.claim.rows)
        self._tell_about(done, asked_at_ns)
        # Last, because nobody waits for it.
        if done.renewed:
            self._needs.renewed(done.renewed)
        self._needs.committed(spent_ns, batch.size + len(claimed), batch.finished, claimed)
        if batch.finished:
            self._log_ended(batch.finished)
        self._audit.hand_in()

    def _log_ended(self, finished: Sequence[FinishedStep]) -> None:
        """Say what became of attempts, with the ids to find them by; those that succeeded only to who asked for it."""
        if not log.isEnabledFor(logging.INFO):
            return  # a failure of an agent is no fault of the node: nobody who did not ask is told
        failed = [step for step in finished if step.report.kind == "failed"]
        for step in failed[:LOGGED_PER_COMMIT_MAX]:
            status, traceparent = self._row_of(step.lease)
            what = "a step is dead-lettered" if status == "DEAD_LETTER" else "an attempt failed"
            log.info(what, extra=about(step.lease, traceparent, step.report.code))
        if len(failed) > LOGGED_PER_COMMIT_MAX:
            log.info("%d more attempts failed", len(failed) - LOGGED_PER_COMMIT_MAX)
        if log.isEnabledFor(logging.DEBUG):
            for step in finished:
                if step.report.kind != "failed":
                    log.debug("an attempt %s", step.report.kind, extra=about(step.lease, self._row_of(step.lease)[1]))

    def _row_of(self, lease: LeaseRef) -> tuple[str, str]:
        """Return status and trace context of a step, empty when they cannot be read."""
        with contextlib.suppress(RelayMeshError), self._store.reading():
            row = self._store.conn.execute("SELECT status, traceparent FROM steps WHERE id=?", (lease.row_id,))
            status, traceparent = row.fetchone() or ("", "")
            return status, traceparent or ""
        return "", ""

    def _ready_groups(self) -> list[tuple[str, str]]:
        """Return what could be claimed, by agent and lane: nobody takes the write lock only to find nothing.

        Left out after a hint, as long as hints bring work: then the look inside the transaction is enough.
        """
        if not self._maybe_ready or not self._may_claim():
            return []
        free, pools = self._demand.free, self._facts.pools
        found = [group for group in self._store.ready_groups() if free.get(pools.get(group[0], ""), 0) > 0]
        self._maybe_ready = bool(found)
        return found

    def _apply(
        self, batch: Batch, spilled: dict[str, Stored], groups: list[tuple[str, str]] | None, *, due: bool
    ) -> Done:
        done = Done()
        now_ms = self._needs.now_ms()
        audit = self._audit
        audit.begin(now_ms)
        store, facts = self._store, self._facts
        if store.used_up:
            store.take_used_up()  # of a transaction that failed
        tasks = [task for message, _ in batch.submits for task in message.tasks]
        straight = bool(tasks) and all(map(is_direct, tasks)) and self._may_claim()
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
        if batch.take_over:
            # After the results: what ended before the former queue crashed need not run again.
            self._take_over(done, now_ms)
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
        if store.used_up:
            audit.used_up(store.take_used_up())
        if batch.paused:
            self._standing.record(store, audit)
        for node in batch.nodes:
            # A heartbeat that was on its way while we took over from ourselves says nothing about others.
            if node.generation == self._generation and not self._standing.beat(store, node, audit, now_ms):
                self._needs.lost_generation()
            store.forget_buckets(now_ms=now_ms, limit=BUCKETS_PER_HEARTBEAT)
            store.count_latencies()
            store.forget_latencies(now_ms=now_ms)
        for order, reply in batch.maintenance:
            done.answers.append((reply, self._maintain(order, now_ms)))
            done.ready = done.due_changed = True
        for alerts, reply in batch.alerts:
            taken = save_alerts(
                store.conn, alerts.states, over_version=alerts.over_version, fired=alerts.fired, now_ms=now_ms
            )
            done.answers.append((reply, taken))
        for members, reply in batch.members:
            done.answers.append((reply, write_members(store.conn, members, now_ms=now_ms)))
        if due:
            store.promote_due(now_ms=now_ms, limit=PROMOTE_MAX)
            audit.fired(store.fire_due(now_ms=now_ms))
            done.ready = done.due_changed = True
        # What the queue gives back is free in its books already, or never was taken there: its demand says so.
        given_back = {id(lease) for released in batch.released for lease in released.leases}
        ended = [facts.pools.get(lease.agent_id, "") for lease in done.ended if id(lease) not in given_back]
        done.free = self._demand.with_ended(ended)
        if straight or (self._may_claim() and (done.ready or self._maybe_ready or self._makes_room(done.ended))):
            self._claim(done, batch, tasks if straight else [], groups, now_ms)
        # The end of a run is what a queued tick waits for.
        if done.due_changed or (self._tick_queued and done.ended):
            self._due_known = False
        audit.end(store)
        return done

    def _makes_room(self, ended: Iterable[LeaseRef]) -> bool:
        """Whether something may wait for the room that these leave: in a pool, at an agent's own limit, at another."""
        agents = {lease.agent_id for lease in ended}
        if self._held and agents:
            return True
        pools, limits = self._facts.pools, self._facts.limits
        return not agents.isdisjoint(limits) or self._demand.makes_room(pools.get(agent, "") for agent in agents)

    def _take_over(self, done: Done, now_ms: int) -> None:
        facts = self._facts
        self._demand.withdraw()
        died = self._needs.current_generation() == 0
        if died:
            self._audit.before_start(self._store)
        generation = self._store.register_node(
            facts.node_id,
            pid=facts.pid,
            host=facts.host,
            agents=facts.agents,
            now_ms=now_ms,
            patience=self._needs.member_rules().patience,
        )
        # An actor that was started anew in this process says nothing about the steps that ran: only a death counts.
        requeued = self._store.requeue_former_generation(
            node_id=facts.node_id,
            generation=generation,
            policy_of=facts.policy_of,
            now_ms=now_ms,
            died=died,
        )
        self._audit.took_over(requeued)
        self._standing.registered(self._store)
        self._store.claims_as = facts.node_id
        self._generation = done.generation = generation
        done.ready = done.due_changed = True
        done.requeued = requeued.reclaimed

    def _maintain(self, message: RunMaintenance, now_ms: int) -> MaintenanceDone:
        policy_of = self._facts.policy_of
        expired = self._store.reclaim(message.expired, cause="lease_expired", policy_of=policy_of, now_ms=now_ms)
        dead = self._store.reclaim(message.dead, cause="owner_dead", policy_of=policy_of, now_ms=now_ms)
        if message.clock_set_back:
            self._store.restart_waits(now_ms=now_ms)
        expired_tasks = self._store.expire_tasks(now_ms=now_ms, limit=PROMOTE_MAX)
        members = round_of_members(self._store, message, self._needs.member_rules(), now_ms)
        self._audit.maintained(message, expired, dead, expired_tasks, members)
        return MaintenanceDone(
            expired_reclaimed=expired.reclaimed,
            dead_reclaimed=dead.reclaimed,
            promoted=0,
            expired_tasks=len(expired_tasks),
            suspected=len(members.marked.suspected),
            dead=len(members.marked.dead),
            pruned=len(members.pruned),
        )

    def _may_claim(self) -> bool:
        # Without a generation a claim could not be told from one of our former self.
        return self._demand.stands and self._generation > 0 and not self._standing.reason

    def _heed(self, *, began: bool) -> None:
        """Something was heard about our own standing. began: a pause, which is to be recorded."""
        self._batch.paused |= began

    def _take_demand(self, demand: Demand) -> None:
        state = Fairness(demand.position, demand.high_run)
        self._maybe_ready |= self._demand.take(
            demand.free, after=demand.after, limit=demand.limit, state=state, once=demand.once
        )

    def _claim(
        self,
        done: Done,
        batch: Batch,
        tasks: list[NewTask],
        groups: list[tuple[str, str]] | None,
        now_ms: int,
    ) -> None:
        """Claim ready steps, or store new tasks and claim these or others."""
        facts, state = self._facts, self._demand.state
        limit = min(self._demand.limit, self._claim_max)
        slots = Slots(pools=facts.pools, free=done.free, room={}, limits=facts.limits, limit=limit)
        token = f"{self._needs.lease_token()}."
        if tasks:
            # As an idle node finds it: what was ready went with the last claim, and nobody has committed since.
            news = self._maybe_ready or self._held or done.ready or done.ended
            nothing_waits = not news and self._store.nobody_else_since(self._data_version)
            results, claim = self._store.submit_and_claim(
                tasks,
                slots,
                state,
                node_id=facts.node_id,
                generation=self._generation,
                token=token,
                now_ms=now_ms,
                nothing_waits=nothing_waits,
            )
            self._answer_submits(done, batch, results)
        else:
            claim = self._store.claim(
                slots,
                state,
                node_id=facts.node_id,
                generation=self._generation,
                token=token,
                now_ms=now_ms,
                groups=groups,
            )
        if claim.forced_low:
            self._store.add_counter(LOW_STARVATION, claim.forced_low)
        self._audit.conflicts |= claim.fenced
        done.claim = claim

    def _answer_submits(self, done: Done, batch: Batch, results: list[tuple[str, bool]]) -> None:
        start = 0
        for message, reply in batch.submits:
            end = start + len(message.tasks)
            ours = tuple(results[start:end])
            done.answers.append((reply, StoreAnswer(ours, self._audit.submitted(message, ours))))
            start = end
        done.ready = done.due_changed = True

    # After the commit.

    def _tell_about(self, done: Done, asked_at_ns: int) -> None:
        try:
            self._tell_actors(done, asked_at_ns)
        finally:
            # Last, because what was claimed can run meanwhile; and in any case, because it is on disk.
            for reply, answer in done.answers:
                reply.answer(answer)

    def _tell_actors(self, done: Done, asked_at_ns: int) -> None:
        if done.generation:
            self._needs.generation(done.generation)
        # What ended goes first: the claim may bring the same step again, under its next lease.
        if done.ended:
            number = self._demand.committed(done.free)
            self._queue.tell(Committed(_ended(done.ended), done.refused, number, done.free))
        if done.generation:
            self._queue.tell(TookOver(done.generation, done.requeued, self._demand.number))
        for address, message in done.tells:
            address.tell(message)
        if done.claim is not None:
            self._tell_claimed(done.claim, asked_at_ns)
        elif done.ready:
            self._maybe_ready = True

    def _tell_claimed(self, claim: Claim, asked_at_ns: int) -> None:
        # With slots to spare it took all that was ready for them; another slot, or news, is told apart.
        self._maybe_ready = len(claim.rows) >= min(self._demand.limit, self._claim_max)
        if claim.fenced:
            self._generation = 0  # no claim is made any more: the node ends
            self._needs.lost_generation()
        self._held = claim.held
        self._wait_for_room(claim.due_in_ms)
        if not claim.rows:
            return
        grants: list[Grant] = []
        late: list[LeaseRef] = []
        unread: set[int] = set()
        room = CLAIM_CHARS_MAX
        for row in claim.rows:
            if room <= 0:
                late.append(row.lease)
                continue
            try:
                rendered = self._store.render(row)
            except RelayMeshError as error:
                self._rest(error, "could not be read")
                self._batch.released.append(ReleaseSteps((row.lease,)))
                unread.add(row.lease.row_id)
                continue
            if isinstance(rendered, Grant):
                if rendered.traceparent:
                    self._audit.remember_trace(rendered)
                grants.append(rendered)
                room -= len(rendered.payload)
            else:
                self._batch.finished.append(self._refused_input(*rendered))
        # What did not fit goes back at once, and the next claim takes no more than did; then it may grow again.
        self._claim_max = min(CLAIM_MAX, 2 * self._claim_max) if not late else max(1, len(claim.rows) - len(late))
        if late:
            self._batch.released.append(ReleaseSteps(tuple(late)))
        unread |= {lease.row_id for lease in late}
        kept = (row.pool for row in claim.rows if row.lease.row_id not in unread)
        self._tell_grants(tuple(grants), kept, claim.state, asked_at_ns)

    def _wait_for_room(self, due_in_ms: int | None) -> None:
        """Claim again when a rate lets the next step start; nothing else tells us of that."""
        self._room_at_ns = None
        if due_in_ms is not None:
            due_in_ns = min(due_in_ms * 1_000_000, ROOM_NS_MAX)
            self._room_at_ns = self._timers.now_ns() + due_in_ns
            self._timers.after(due_in_ns, self.address, PollStore(), key="room")

    def _tell_grants(self, grants: tuple[Grant, ...], pools: Iterable[str], state: Fairness, asked_at_ns: int) -> None:
        """Tell the queue what its demand brought. pools: of all steps that were claimed."""
        number = self._demand.claimed(pools, state)
        free = dict(self._demand.free)
        self._queue.tell(Claimed(number, free, grants, state.position, state.high_run, asked_at_ns))

    def _refused_input(self, lease: LeaseRef, failed: Failed) -> FinishedStep:
        now_ms = self._needs.now_ms()
        report = StepReport(
            lease.row_id,
            lease.lease_token,
            "failed",
            code=failed.code,
            error=failed.error,
            retryable=False,
            started_at_ms=now_ms,
            finished_at_ms=now_ms,
        )
        return FinishedStep(lease, report, self._facts.node_id)

    def _failed(self, batch: Batch, error: RelayMeshError) -> None:
        """The database refused and nothing was changed: tell who asked, keep what must not be lost, try again later."""
        if isinstance(error, StoreDefectError | InputError):
            self._leave_out(batch, error)
            return
        self._rest(error, "refused a commit")
        for _, reply in batch.submits:
            reply.fail(error)
        for _, reply in (*batch.maintenance, *batch.alerts, *batch.members):
            reply.fail(error)
        for renewal in batch.renewals:
            self._lease.tell(Renewed((), (), renewal.asked_at_ns, failed=True))
        kept = self._batch
        kept.finished[:0] = batch.finished
        kept.released[:0] = batch.released
        kept.lost[:0] = batch.lost
        kept.spent[:0] = batch.spent
        kept.take_over |= batch.take_over
        kept.paused |= batch.paused

    def _leave_out(self, batch: Batch, error: RelayMeshError) -> None:
        """It is one write that cannot be made, not the disk: make the others one by one, and give up that one.

        A result that cannot be stored becomes a failure that says so, and is not tried again. What else is given up
        (a release, a lost attempt) leaves its step to the end of its lease.
        """
        parts = batch.split()
        if len(parts) > 1:
            for part in parts:
                self._commit(part)
            return
        log.error("a write cannot be made and is left out (%s): %s", error.code, error)
        for _, reply in (*batch.submits, *batch.maintenance, *batch.alerts, *batch.members):
            reply.fail(error)
        for step in batch.finished:
            if step.report.code != error.code:
                failed = Failed(error.code, str(error), retryable=False)
                self._batch.finished.append(self._refused_input(step.lease, failed))

    def _rest(self, error: RelayMeshError, what: str) -> None:
        """Let the disk rest for a while, longer each time."""
        if self._failures & (self._failures - 1) == 0:
            log.error("the store %s (%s): %s", what, error.code, error)
        delay_ns = RETRY_NS[min(self._failures, len(RETRY_NS) - 1)]
        self._failures += 1
        self._retry_at_ns = self._timers.now_ns() + delay_ns
        self._timers.after(delay_ns, self.address, PollStore(), key="retry")


def _ended(leases: Iterable[LeaseRef]) -> tuple[tuple[int, int], ...]:
    return tuple((lease.row_id, lease.lease_epoch) for lease in leases)


VERIFY_NS = 200_000_000
"""How often, at most, long-running steps are looked at because another process committed something."""
