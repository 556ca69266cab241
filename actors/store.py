"""StoreActor: the only writer of the database in a process, committing in groups.

    mail ──▶ collect ──(mailbox empty, or batch full)──▶ BEGIN; everything; claim for free slots; COMMIT ──▶ answers

Whatever waits in the mailbox goes into one transaction, and everybody is answered after its commit. The standing demand
of the queue is served in the same transaction, so what a commit makes ready is claimed without another.

    actors/store_batch.py     what is collected, and what its transaction came to
    actors/store_write.py     the transaction
    actors/store_claim.py     what may be claimed in it, and what is handed over of that
    actors/store_look.py      looks for commits of others, and for what became due
    actors/store_refusal.py   what is kept, and what is given up, when the database refuses
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from actors.about import log_ended
from actors.address import Address
from actors.audit_rows import AuditRowsOf, Desk
from actors.base import Actor
from actors.members import OwnStanding
from actors.store_batch import Batch, Done
from actors.store_claim import Claims
from actors.store_look import Looks
from actors.store_needs import NodeFacts, StoreNeeds
from actors.store_refusal import Refusals
from actors.store_write import Writer
from actors.timer import Timers
from relaymesh.errors import RelayMeshError
from relaymesh.store.error import RootMovedError
from relaymesh.store.store import Store
from relaymesh.wire.mesh import WriteMembers
from relaymesh.wire.store import (
    AttemptLost,
    Committed,
    Demand,
    FinishSteps,
    LocalVerdict,
    PollStore,
    ReleaseSteps,
    Renewed,
    RenewLeases,
    RunMaintenance,
    SpendSteps,
    SubmitTasks,
    TakeOver,
    TookOver,
    VerifyLeases,
    WithdrawDemand,
    Withdrawn,
    WriteAlerts,
    WriteNode,
)

__all__ = ["StoreActor"]

log = logging.getLogger("relaymesh.store")

BATCH_MESSAGES_MAX = 256
BATCH_STEPS_MAX = 512
"""Tasks and results after which a transaction is written: some 50 ms, for which everybody else who writes waits."""
BATCH_CHARS_MAX = 32 * 1024 * 1024
"""Output characters that one transaction collects before it is written."""


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
        self._standing = OwnStanding(facts.node_id, needs.member_rules, needs.paused)
        self._looks = Looks(timers, lease, needs)
        self._refusals = Refusals(facts.node_id, needs, timers, lease, self._look_in)
        self._claims = Claims(facts, needs, timers, queue, self._standing, self._audit, self._refusals, self._look_in)
        self._writer = Writer(facts, needs, queue, lease, self._claims, self._looks, self._standing, self._audit)

    def started(self) -> None:
        self._store = Store.open(
            self._facts.root,
            namespace=self._facts.namespace,
            now_ms=self._needs.now_ms(),
            durability=self._facts.durability,
        )
        self._store.state.remembers = self._store.latencies.later = True
        self._make_room()
        self._looks.begin(self.address)

    def _make_room(self) -> None:
        try:
            self._store.make_room_in_log()
        except RelayMeshError as error:
            log.info("the log is not made longer (%s): %s", error.code, error)  # commits do it, a little slower

    def stopping(self) -> None:
        self._looks.end()
        self._refusals.break_off()
        self._flush()
        while self._batch.writes and not self._refusals.resting:
            self._flush()
        with contextlib.suppress(RelayMeshError), self._store.write():
            self._store.latencies.count()
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
                self._claims.take_demand(message)
            case RenewLeases():
                batch.renewals.append(message)
            case SpendSteps(attempts):
                batch.spent.extend(attempts)
            case PollStore(hint):
                if hint:
                    self._claims.hint()  # the rest has time until the next look of our own
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
                self._claims.demand.withdraw()
                self._queue.tell(Withdrawn(self._claims.demand.number))
        if batch.messages >= BATCH_MESSAGES_MAX or self._steps >= BATCH_STEPS_MAX or self._chars >= BATCH_CHARS_MAX:
            self._flush()

    def went_idle(self) -> None:
        self._flush()
        # What a claim left to do (input that could not be had, more than fits), and slots that its limit left free.
        while self._left_to_do() and self.mailbox_empty():
            self._flush()
        # Also when the worker is paused: who asks for one step only waits for an answer.
        if not self._refusals.resting:
            self._claims.answer_once()

    def _left_to_do(self) -> bool:
        return not self._refusals.resting and (self._batch.writes or self._claims.may_find())

    # What is due, or came from outside.

    def _poll(self) -> None:
        try:
            self._look()
        except RelayMeshError as error:
            self._refusals.rest(error, "could not be read")

    def _look(self) -> None:
        news = self._looks.for_news(self._store)
        self._claims.look(news=news)
        if news and self._claims.generation:
            self._heed(began=self._standing.look(self._store))
        self._looks.for_due(self._store)

    def _look_in(self, delay_ns: int, key: str) -> None:
        self._timers.after(delay_ns, self.address, PollStore(), key=key)

    def _verify(self, leases: tuple[tuple[int, int], ...]) -> None:
        try:
            lost = self._store.lost_leases(leases, node_id=self._facts.node_id)
            cancelled = self._store.cancel_reasons(row_id for row_id, _ in lost) if lost else ()
        except RelayMeshError as error:
            self._refusals.rest(error, "could not be read")
            return
        if lost:
            self._lease.tell(Renewed((), lost, 0, cancelled=cancelled))

    def _heed(self, *, began: bool) -> None:
        """Something was heard about our own standing. began: a pause, which is to be recorded."""
        self._batch.paused |= began

    # The transaction.

    def _flush(self) -> None:
        batch = self._batch
        if self._refusals.too_early and not batch.asked:
            return  # the disk refused a moment ago; nobody waits for an answer, so let it rest
        if not (batch.writes or self._looks.is_due or self._claims.may_find()):
            batch.messages = 0  # a look that found nothing, as an idle node makes four times a second
            return
        self._batch, self._steps, self._chars = Batch(), 0, 0
        self._commit(batch)

    def _commit(self, batch: Batch) -> None:
        store, claims = self._store, self._claims
        due = self._looks.is_due
        asked_at_ns = self._timers.now_ns()
        hinted = claims.take_hint()
        try:
            groups = None
            if not batch.writes and not due and not claims.unseen(hinted=hinted):
                groups = claims.ready_groups(store)
                if not groups:
                    return
            spilled = store.spill_outputs(batch.finished)
            began_ns = self._timers.now_ns()
            with store.write():
                done = self._writer.apply(store, batch, spilled, groups, due=due)
        except RelayMeshError as error:
            self._needs.refused()
            if isinstance(error, RootMovedError):
                self._needs.lost_root()  # with the next heartbeat at the latest
            for part in self._refusals.take(batch, error, self._batch):
                self._commit(part)
            return
        spent_ns = self._timers.now_ns() - began_ns
        self._refusals.over()
        self._committed(batch, done)
        self._tell(done, hinted=hinted, asked_at_ns=asked_at_ns)
        # Last, because nobody waits for it.
        claimed = done.claimed
        if done.renewed:
            self._needs.renewed(done.renewed)
        self._needs.committed(spent_ns, batch.size + len(claimed), batch.finished, claimed)
        if batch.finished:
            log_ended(log, store, batch.finished)
        self._audit.hand_in()

    def _committed(self, batch: Batch, done: Done) -> None:
        """Heed for the next looks what is on disk now."""
        looks = self._looks
        looks.wrote()
        # The end of a run is what a queued tick waits for.
        if done.due_changed or (looks.tick_queued and done.ended):
            looks.forget_due()
        if batch.nodes or batch.take_over:
            self._heed(began=self._standing.settle())
        if done.claimed or done.due_changed or batch.size > len(batch.nodes):
            looks.stir()

    # After the commit.

    def _tell(self, done: Done, *, hinted: bool, asked_at_ns: int) -> None:
        try:
            self._tell_actors(done, hinted=hinted, asked_at_ns=asked_at_ns)
        finally:
            # Last, because what was claimed can run meanwhile; and in any case, because it is on disk.
            for reply, answer in done.answers:
                reply.answer(answer)

    def _tell_actors(self, done: Done, *, hinted: bool, asked_at_ns: int) -> None:
        demand = self._claims.demand
        if done.generation:
            self._needs.generation(done.generation)
        # What ended goes first: the claim may bring the same step again, under its next lease.
        if done.ended:
            number = demand.committed(done.free)
            ended = tuple((lease.row_id, lease.lease_epoch) for lease in done.ended)
            self._queue.tell(Committed(ended, done.refused, number, done.free))
        if done.generation:
            self._queue.tell(TookOver(done.generation, done.requeued, demand.number))
        for address, message in done.tells:
            address.tell(message)
        if done.claim is not None:
            self._claims.hand_over(self._store, done.claim, self._batch, hinted=hinted, asked_at_ns=asked_at_ns)
        elif done.ready:
            self._claims.maybe_ready = True
