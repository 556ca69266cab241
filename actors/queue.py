"""QueueActor: the books of one node. Who runs what, how many more can be taken, and the drain.

The rules are in ``relaymesh.core.dispatch``; the order in which lanes are served is decided by
``relaymesh.core.fairness`` inside the store's claim. This actor keeps the grants that belong to the row ids and passes
them on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, assert_never

from actors.address import Address
from actors.base import Actor
from actors.timer import Timers
from relaymesh.core import dispatch
from relaymesh.core.lease import renew_period_ns
from relaymesh.core.plural import counted
from relaymesh.wire.setting import SettingsChanged
from relaymesh.wire.store import (
    CancelGrants,
    Claimed,
    Committed,
    CutSteps,
    Demand,
    DrainOver,
    DrainQueue,
    Grant,
    GrantsRefused,
    LeaseRef,
    LeasesEnded,
    LeasesLost,
    LeasesTaken,
    QueueDrained,
    ReleaseSteps,
    ResendLeases,
    RevokeGrants,
    RunGrants,
    StepCut,
    TakeOver,
    TellLeases,
    TookOver,
    WithdrawDemand,
    Withdrawn,
    WorkerCapacity,
    WorkerUp,
)

__all__ = ["DEMAND_MAX", "TELL_LEASES_NS", "QueueActor", "WorkerSlot", "tell_after_ns"]

log = logging.getLogger("relaymesh.queue")

DEMAND_MAX = 1024
"""Steps that a node asks for at a time."""
TELL_LEASES_NS = 500_000_000
"""The LeaseActor hears of a lease that is this old, or half as old as its first renewal; most have ended by then."""


def tell_after_ns(lease_timeout_ms: int) -> int:
    """Return how old a lease is when the LeaseActor hears of it."""
    return min(TELL_LEASES_NS, renew_period_ns(lease_timeout_ms) // 2)


class WorkerSlot:
    """One worker of the node: where it is, the pool it serves, how many steps it takes."""

    __slots__ = ("address", "capacity", "pool")

    def __init__(self, address: Address, pool: str, capacity: int) -> None:
        self.address, self.pool, self.capacity = address, pool, capacity


class QueueActor(Actor):
    """See the module. ``on_drained`` is called once, in this actor's thread, when a drain is over.

    tell_after_ns: how old a lease is when the LeaseActor hears of it; well below the time to its first renewal.
    """

    takes = (
        TookOver
        | WorkerUp
        | WorkerCapacity
        | Claimed
        | Committed
        | GrantsRefused
        | LeasesLost
        | CutSteps
        | ResendLeases
        | DrainQueue
        | DrainOver
        | Withdrawn
        | TellLeases
        | SettingsChanged
    )

    def __init__(
        self,
        store: Address,
        lease: Address,
        workers: Mapping[str, WorkerSlot],
        timers: Timers,
        on_drained: Callable[[QueueDrained], None],
        on_committed: Callable[[Committed], None] = lambda _: None,
        *,
        tell_after_ns: int,
        on_claimed: Callable[[LeaseRef], None] = lambda _: None,
        one_step: bool = False,
    ) -> None:
        super().__init__()
        self._store = store
        self._lease = lease
        self._workers = workers
        self._timers = timers
        self._on_drained = on_drained
        self._on_committed = on_committed
        self._on_claimed = on_claimed
        self._one_step = one_step
        self._books = dispatch.Dispatch()
        self._grants: dict[int, Grant] = {}
        self._starts: dict[str, int] = {}
        # Leases by age: young ones in batches as they were claimed, and the lease epoch of those the LeaseActor knows.
        self._young: deque[tuple[int, tuple[tuple[int, int], ...]]] = deque()
        self._told: dict[int, int] = {}
        self._timer_set = False
        self._tell_after_ns = tell_after_ns
        self._position = self._high_run = 0
        self._out_of_time = False

    def started(self) -> None:
        self._store.tell(TakeOver())

    def receive(self, message: Any) -> object:
        match message:
            case Committed(leases, _, number, free):
                row_ids = self._ours(leases)
                self._tell_ended(leases)
                self._perform(self._books.handle(dispatch.Ended(row_ids, number, free)))
                self._forget(row_ids)
                self._on_committed(message)
            case Claimed(number, free, grants, position, high_run, asked_at_ns):
                self._position, self._high_run = position, high_run
                self._grants.update((grant.lease.row_id, grant) for grant in grants)
                steps = tuple((grant.lease.row_id, grant.pool) for grant in grants)
                self._perform(self._books.handle(dispatch.Claimed(number, free, steps)))
                self._keep_young(grants, asked_at_ns)
                if self._one_step:
                    self._on_claimed(grants[0].lease) if grants else None
                    self._perform(self._books.handle(dispatch.Close()))
            case GrantsRefused(row_ids):
                self._perform(self._books.handle(dispatch.GaveBack(row_ids)))
            case LeasesLost(leases, reason):
                row_ids = self._ours(leases)
                for row_id in row_ids:
                    self._told.pop(row_id, None)
                self._perform(self._books.handle(dispatch.Lost(row_ids)), reason)
                self._forget(row_ids)
            case WorkerUp(name, start):
                self._starts[name] = start
                slot = self._workers[name]
                self._perform(self._books.handle(dispatch.WorkerUp(name, slot.pool, slot.capacity)))
            case WorkerCapacity(name, capacity):
                self._perform(self._books.handle(dispatch.SetCapacity(name, capacity)))
            case TookOver(generation, requeued, number):
                if requeued:
                    back = counted(requeued, "step")
                    log.warning("generation %d took back %s of its former self", generation, back)
                self._perform(self._books.handle(dispatch.TookOver(number)))
            case TellLeases():
                self._timer_set = False
                self._tell_taken()
            case SettingsChanged(owner_lease_ms):
                self._tell_after_ns = tell_after_ns(owner_lease_ms)
            case CutSteps(cuts):
                self._cut(cuts)
            case ResendLeases():
                if self._told:
                    self._lease.tell(LeasesTaken(self._leases(self._told.items()), 0))
            case DrainQueue(within_ms):
                self._timers.after(within_ms * 1_000_000, self.address, DrainOver(), key="drain")
                self._perform(self._books.handle(dispatch.Drain()))
            case Withdrawn(number):
                self._perform(self._books.handle(dispatch.Withdrawn(number)))
            case DrainOver():
                self._out_of_time = len(self._books) > 0
                self._perform(self._books.handle(dispatch.DrainTimeout()))
            case _:
                assert_never(message)
        return None

    # Leases, as the LeaseActor hears of them.

    def _keep_young(self, grants: tuple[Grant, ...], asked_at_ns: int) -> None:
        """Remember new leases: most end before anybody has to look after them, and then nobody hears of them."""
        if grants:
            self._young.append((asked_at_ns, tuple((g.lease.row_id, g.lease.lease_epoch) for g in grants)))
            self._set_timer()

    def _set_timer(self) -> None:
        if self._young and not self._timer_set:
            self._timer_set = True
            self._timers.after(self._tell_after_ns, self.address, TellLeases(), key="leases")

    def _tell_taken(self) -> None:
        """Hand the leases that are still held after a while to the LeaseActor, trusted since they were asked for."""
        old_ns = self._timers.now_ns() - self._tell_after_ns // 2
        while self._young and self._young[0][0] <= old_ns:
            asked_at_ns, leases = self._young.popleft()
            ours = set(self._ours(leases))
            held = [(row_id, epoch) for row_id, epoch in leases if row_id in ours]
            if held:
                self._told.update(held)
                self._lease.tell(LeasesTaken(self._leases(held), asked_at_ns))
        self._set_timer()

    def _leases(self, held: Iterable[tuple[int, int]]) -> tuple[tuple[int, str, int, int], ...]:
        leases = (self._grants[row_id].lease for row_id in self._ours(held))
        return tuple((lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch) for lease in leases)

    def _tell_ended(self, leases: tuple[tuple[int, int], ...]) -> None:
        ended = tuple((row_id, epoch) for row_id, epoch in leases if self._told.get(row_id) == epoch)
        if ended:
            for row_id, _ in ended:
                del self._told[row_id]
            self._lease.tell(LeasesEnded(ended))

    def _ours(self, leases: Iterable[tuple[int, int]]) -> tuple[int, ...]:
        """Return the rows whose lease is in our books: a late word about a former lease of a step must not end it."""
        grants = self._grants
        return tuple(
            row_id for row_id, epoch in leases if row_id in grants and grants[row_id].lease.lease_epoch == epoch
        )

    def _cut(self, cuts: tuple[StepCut, ...]) -> None:
        """Pass on which steps have to end because of a budget; they stay in the books until their reports."""
        for name in {cut.worker for cut in cuts} & self._workers.keys():
            its = tuple(cut for cut in cuts if cut.worker == name)
            self._workers[name].address.tell(CutSteps(its))

    def _forget(self, row_ids: Iterable[int]) -> None:
        for row_id in row_ids:
            self._grants.pop(row_id, None)

    def _perform(self, effects: list[dispatch.Effect], stop_reason: str = "the node stops") -> None:
        for effect in effects:
            match effect:
                case dispatch.Ask() if self._one_step and len(self._starts) < len(self._workers):
                    pass
                case dispatch.Ask(after, free):
                    limit = 1 if self._one_step else DEMAND_MAX
                    self._store.tell(Demand(after, free, limit, self._position, self._high_run, once=self._one_step))
                case dispatch.Run(worker, row_ids):
                    grants = tuple(self._grants[row_id] for row_id in row_ids)
                    self._workers[worker].address.tell(RunGrants(grants, self._starts[worker]))
                case dispatch.Release(row_ids):
                    leases = tuple(self._grants[row_id].lease for row_id in row_ids if row_id in self._grants)
                    self._store.tell(ReleaseSteps(leases))
                case dispatch.Revoke(worker, row_ids):
                    self._workers[worker].address.tell(RevokeGrants(row_ids))
                case dispatch.Stop(worker, row_ids):
                    self._workers[worker].address.tell(CancelGrants(row_ids, stop_reason))
                case dispatch.Withdraw():
                    self._store.tell(WithdrawDemand())
                case dispatch.Drained(released):
                    self._on_drained(QueueDrained(not self._out_of_time, released))
                case _:
                    assert_never(effect)
