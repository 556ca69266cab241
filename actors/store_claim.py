"""What the StoreActor may claim for the queue, and what it hands over of what it has claimed.

    Demand ──▶ may_claim? ──▶ ready groups ──(in the transaction)──▶ claim ──(after its commit)──▶ Claimed ──▶ queue
                                                                       └─ what has no room or no input goes back

The count of free slots is ``relaymesh.core.demand``; which steps they get is chosen where the rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from actors.address import Address
from actors.audit_rows import AuditRowsOf
from actors.members import OwnStanding
from actors.store_batch import Batch, failure
from actors.store_needs import NodeFacts, StoreNeeds
from actors.store_refusal import Refusals
from actors.timer import Timers
from relaymesh.core.demand import Standing
from relaymesh.core.fairness import Fairness
from relaymesh.errors import RelayMeshError
from relaymesh.store.claim import Claim, Slots
from relaymesh.store.counter import LOW_STARVATION
from relaymesh.store.store import Store
from relaymesh.wire.store import Claimed, Demand, Grant, LeaseRef, NewTask, ReleaseSteps

__all__ = ["CLAIM_CHARS_MAX", "CLAIM_MAX", "ROOM_NS_MAX", "Claims"]

CLAIM_MAX: Final = 1024
"""Steps per claim. A larger batch makes a commit cheaper per step and everybody else wait longer."""
CLAIM_CHARS_MAX: Final = 16 * 1024 * 1024
"""Payload characters per claim, exceeded by one payload at most: what a claim holds is in memory several times."""
ROOM_NS_MAX: Final = 60_000_000_000
"""The longest wait for the room that a rate gives: the clock may be set meanwhile."""


class Claims:
    """The claims of one StoreActor.

    generation: the node's, 0 before it has one and after it has lost it. maybe_ready: a claim may find something.
    look_in: has the actor look again after so many nanoseconds, at most once for a key.
    """

    def __init__(
        self,
        facts: NodeFacts,
        needs: StoreNeeds,
        timers: Timers,
        queue: Address,
        standing: OwnStanding,
        audit: AuditRowsOf,
        refusals: Refusals,
        look_in: Callable[[int, str], None],
    ) -> None:
        self.demand = Standing()
        self.generation = 0
        self.maybe_ready = True
        self._facts = facts
        self._needs = needs
        self._timers = timers
        self._queue = queue
        self._standing = standing
        self._audit = audit
        self._refusals = refusals
        self._look_in = look_in
        self._steps_max = CLAIM_MAX
        # The last claim left something to a limit, so the end of any step may make room; when a rate does by itself.
        self._held = False
        self._room_at_ns: int | None = None
        # Somebody told us of a commit since the last look, and whether the last such word brought work for us.
        self._hinted = False
        self._hints_pay = True

    # Before the transaction.

    def take_demand(self, demand: Demand) -> None:
        """The queue has counted its free slots."""
        state = Fairness(demand.position, demand.high_run)
        self.maybe_ready |= self.demand.take(
            demand.free, after=demand.after, limit=demand.limit, state=state, once=demand.once
        )

    def hint(self) -> None:
        """Somebody says that he has committed something."""
        self.maybe_ready = self._hinted = True

    def take_hint(self) -> bool:
        """Return whether there was such a word since this was asked last."""
        hinted, self._hinted = self._hinted, False
        return hinted

    def look(self, *, news: bool) -> None:
        """A look found news, or not; the time of a rate may have come."""
        if self._room_at_ns is not None and self._timers.now_ns() >= self._room_at_ns:
            self._room_at_ns = None
            self.maybe_ready = True
        self.maybe_ready |= news

    def may_claim(self) -> bool:
        """Return whether anything may be claimed at all."""
        # Without a generation a claim could not be told from one of our former self.
        return self.demand.stands and self.generation > 0 and not self._standing.reason

    def may_find(self) -> bool:
        """Return whether a claim is worth a look."""
        return self.maybe_ready and self.may_claim()

    def unseen(self, *, hinted: bool) -> bool:
        """Return whether to claim without a look before: hints bring work, so the look in the transaction is enough."""
        return hinted and self._hints_pay and self.may_claim()

    def ready_groups(self, store: Store) -> list[tuple[str, str]]:
        """Return what could be claimed, by agent and lane: nobody takes the write lock only to find nothing."""
        if not self.may_find():
            return []
        free, pools = self.demand.free, self._facts.pools
        found = [group for group in store.ready_groups() if free.get(pools.get(group[0], ""), 0) > 0]
        self.maybe_ready = bool(found)
        return found

    # In the transaction.

    def makes_room(self, ended: Iterable[LeaseRef]) -> bool:
        """Whether something may wait for the room that these leave: in a pool, at an agent's own limit, at another."""
        agents = {lease.agent_id for lease in ended}
        if self._held and agents:
            return True
        pools, limits = self._facts.pools, self._facts.limits
        return not agents.isdisjoint(limits) or self.demand.makes_room(pools.get(agent, "") for agent in agents)

    def claim(self, store: Store, free: dict[str, int], groups: list[tuple[str, str]] | None, now_ms: int) -> Claim:
        """Claim ready steps for free slots. groups: what ``ready_groups`` said a moment ago, if it was asked."""
        claim = store.claim(
            self._slots(free),
            self.demand.state,
            node_id=self._facts.node_id,
            generation=self.generation,
            token=self._token(),
            now_ms=now_ms,
            groups=groups,
        )
        return self._counted(store, claim)

    def submit_and_claim(
        self, store: Store, tasks: Sequence[NewTask], free: dict[str, int], now_ms: int, *, nothing_waits: bool
    ) -> tuple[list[tuple[str, bool]], Claim]:
        """Store new tasks and claim these or others; see ``Store.submit_and_claim``."""
        results, claim = store.submit_and_claim(
            tasks,
            self._slots(free),
            self.demand.state,
            node_id=self._facts.node_id,
            generation=self.generation,
            token=self._token(),
            now_ms=now_ms,
            nothing_waits=nothing_waits,
        )
        return results, self._counted(store, claim)

    @property
    def nothing_left(self) -> bool:
        """Whether the last claim took all that was ready, as far as we know."""
        return not self.maybe_ready and not self._held

    def _slots(self, free: dict[str, int]) -> Slots:
        facts = self._facts
        return Slots(pools=facts.pools, free=free, room={}, limits=facts.limits, limit=self._limit)

    @property
    def _limit(self) -> int:
        return min(self.demand.limit, self._steps_max)

    def _token(self) -> str:
        return f"{self._needs.lease_token()}."

    def _counted(self, store: Store, claim: Claim) -> Claim:
        if claim.forced_low:
            store.add_counter(LOW_STARVATION, claim.forced_low)
        self._audit.conflicts |= claim.fenced
        return claim

    # After the commit.

    def hand_over(self, store: Store, claim: Claim, later: Batch, *, hinted: bool, asked_at_ns: int) -> None:
        """Give the queue what was claimed.

        later: gets what must be written because of it: steps that go back, and failures of those without an input.
        """
        if hinted:
            self._hints_pay = bool(claim.rows)
        # With slots to spare it took all that was ready for them; another slot, or news, is told apart.
        self.maybe_ready = len(claim.rows) >= self._limit
        if claim.fenced:
            self.generation = 0  # no claim is made any more: the node ends
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
                rendered = store.render(row)
            except RelayMeshError as error:
                self._refusals.rest(error, "could not be read")
                later.released.append(ReleaseSteps((row.lease,)))
                unread.add(row.lease.row_id)
                continue
            if isinstance(rendered, Grant):
                if rendered.traceparent:
                    self._audit.remember_trace(rendered)
                grants.append(rendered)
                room -= len(rendered.payload)
            else:
                later.finished.append(failure(*rendered, node_id=self._facts.node_id, now_ms=self._needs.now_ms()))
        # What did not fit goes back at once, and the next claim takes no more than did; then it may grow again.
        self._steps_max = min(CLAIM_MAX, 2 * self._steps_max) if not late else max(1, len(claim.rows) - len(late))
        if late:
            later.released.append(ReleaseSteps(tuple(late)))
        unread |= {lease.row_id for lease in late}
        kept = (row.pool for row in claim.rows if row.lease.row_id not in unread)
        self._tell(tuple(grants), kept, claim.state, asked_at_ns)

    def answer_once(self) -> None:
        """Say that there was nothing, to a queue that asked for one step and waits for an answer."""
        if self.demand.once and self.demand.stands and self.generation > 0:
            self._tell((), (), self.demand.state, 0)

    def _wait_for_room(self, due_in_ms: int | None) -> None:
        """Claim again when a rate lets the next step start; nothing else tells us of that."""
        self._room_at_ns = None
        if due_in_ms is not None:
            due_in_ns = min(due_in_ms * 1_000_000, ROOM_NS_MAX)
            self._room_at_ns = self._timers.now_ns() + due_in_ns
            self._look_in(due_in_ns, "room")

    def _tell(self, grants: tuple[Grant, ...], pools: Iterable[str], state: Fairness, asked_at_ns: int) -> None:
        """Tell the queue what its demand brought. pools: of all steps that were claimed."""
        number = self.demand.claimed(pools, state)
        free = dict(self.demand.free)
        self._queue.tell(Claimed(number, free, grants, state.position, state.high_run, asked_at_ns))
