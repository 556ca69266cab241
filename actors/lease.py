"""LeaseActor: keeps the leases of this node's running steps, and says when one is not to be trusted any more.

The rules are in ``relaymesh.core.lease``. One batched write per period renews everything that is older than a period;
a step that ends sooner is never written about.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, assert_never

from actors.address import Address
from actors.base import Actor
from actors.timer import Timers
from relaymesh.core import lease as rules
from relaymesh.wire.setting import SettingsChanged
from relaymesh.wire.store import (
    AttemptSpent,
    LeasesEnded,
    LeasesLost,
    LeasesTaken,
    LeaseTick,
    Renewed,
    RenewLeases,
    ResendLeases,
    SpendSteps,
    SpendTick,
    StoreChanged,
    VerifyLeases,
)
from relaymesh.wire.work import StepProgress

__all__ = ["PROGRESS_MAX", "SPEND_EVERY_NS", "VERIFY_AGE_NS", "LeaseActor"]

VERIFY_AGE_NS = 100_000_000
"""A step that has run this long is looked at when another process commits, so that a cancel need not wait for the
next renewal; shorter ones end before it matters."""

SPEND_EVERY_NS = 500_000_000
"""How often, at most, a node writes down what its running attempts have spent: one write for all of them."""

PROGRESS_MAX = 4_096
"""Words of running steps that wait for the next renewal; more than that are dropped, they are hints."""

_REASONS = {
    rules.AbandonReason.LOST: "another node has taken the step",
    rules.AbandonReason.TRUST_RAN_OUT: "the lease could not be renewed in time",
}


@dataclass(frozen=True, slots=True)
class _Word:
    """What a running step last said, under which lease token, and when."""

    lease_token: str
    text: str
    said_at_ns: int


class LeaseActor(Actor):
    """See the module."""

    takes = (
        LeasesTaken
        | LeasesEnded
        | Renewed
        | LeaseTick
        | StepProgress
        | AttemptSpent
        | SpendTick
        | StoreChanged
        | SettingsChanged
    )

    def __init__(self, lease_timeout_ms: int, store: Address, queue: Address, timers: Timers) -> None:
        super().__init__()
        self._machine = rules.Leases(lease_timeout_ms=lease_timeout_ms)
        self._renew_period_ns = rules.renew_period_ns(lease_timeout_ms)
        self._store = store
        self._queue = queue
        self._timers = timers
        self._tick_at_ns: int | None = None
        # The last word of each running step; goes to disk with the next renewal of its lease.
        self._progress: dict[int, _Word] = {}
        # What attempts have spent, the last word of each; goes to the store in one write.
        self._spent: dict[str, AttemptSpent] = {}

    def started(self) -> None:
        self._queue.tell(ResendLeases())

    def receive(self, message: Any) -> None:
        now_ns = self._timers.now_ns()
        match message:
            case LeasesTaken(leases, asked_at_ns):
                # Resent to a new LeaseActor, which does not know when they were last confirmed: it asks at once.
                asked_at_ns = asked_at_ns or now_ns - self._renew_period_ns
                for row_id, token, lease_epoch, cluster_epoch in leases:
                    claimed = rules.Claimed(row_id, token, lease_epoch, cluster_epoch, asked_at_ns)
                    self._perform(self._machine.handle(now_ns, claimed))
            case LeasesEnded(leases):
                for row_id, epoch in leases:
                    self._progress.pop(row_id, None)
                    self._machine.handle(now_ns, rules.Finished(row_id, epoch))
            case Renewed(row_ids, lost, asked_at_ns, failed, cancelled):
                if failed:
                    self._perform(self._machine.handle(now_ns, rules.RenewFailed(asked_at_ns)))
                else:
                    self._perform(self._machine.handle(now_ns, rules.Renewed(row_ids, asked_at_ns)))
                reasons = {row_id: f"the task was cancelled: {reason}" for row_id, reason in cancelled}
                for row_id, epoch in lost:
                    self._perform(self._machine.handle(now_ns, rules.Lost(row_id, epoch)), reasons.get(row_id))
            case StepProgress(row_id, lease_token, text):
                if row_id in self._progress or len(self._progress) < PROGRESS_MAX:
                    self._progress[row_id] = _Word(lease_token, text, now_ns)
            case AttemptSpent():
                self._keep_spent(message)
            case SpendTick():
                self._tell_spent()
            case StoreChanged():
                old = self._machine.held_since(now_ns - VERIFY_AGE_NS)
                if old:
                    self._store.tell(VerifyLeases(tuple((held.row_id, held.lease_epoch) for held in old)))
            case SettingsChanged(owner_lease_ms):
                self._renew_period_ns = rules.renew_period_ns(owner_lease_ms)
                self._machine.handle(now_ns, rules.TimeoutChanged(owner_lease_ms))
            case LeaseTick():
                self._tick_at_ns = None
                self._perform(self._machine.handle(now_ns, rules.Tick()))
            case _:
                assert_never(message)
        self._set_timer(now_ns)

    def _keep_spent(self, message: AttemptSpent) -> None:
        if not self._spent:
            self._timers.after(SPEND_EVERY_NS, self.address, SpendTick(), key="spend")
        self._spent[message.lease.lease_token] = message
        if len(self._spent) >= PROGRESS_MAX:
            self._tell_spent()

    def _tell_spent(self) -> None:
        if self._spent:
            self._store.tell(SpendSteps(tuple(self._spent.values())))
            self._spent = {}

    def _set_timer(self, now_ns: int) -> None:
        wake_at_ns = self._machine.wake_at_ns
        # A timer that comes early is harmless; setting one for each batch of short steps is not free.
        if wake_at_ns is None or (self._tick_at_ns is not None and self._tick_at_ns <= wake_at_ns):
            return
        self._tick_at_ns = wake_at_ns
        self._timers.after(max(0, wake_at_ns - now_ns), self.address, LeaseTick(), key="tick")

    def _perform(self, effects: list[rules.Effect], reason_lost: str | None = None) -> None:
        for effect in effects:
            match effect:
                case rules.Renew(leases, asked_at_ns):
                    rows = tuple((held.row_id, held.token, held.lease_epoch, held.cluster_epoch) for held in leases)
                    self._store.tell(RenewLeases(rows, asked_at_ns, self._take_progress(leases, asked_at_ns)))
                case rules.Abandon(row_id, lease_epoch, reason):
                    self._progress.pop(row_id, None)
                    self._queue.tell(LeasesLost(((row_id, lease_epoch),), reason_lost or _REASONS[reason]))
                case _:
                    assert_never(effect)

    def _take_progress(self, leases: Iterable[rules.Claimed], now_ns: int) -> tuple[tuple[int, str], ...]:
        """Take the words of steps whose lease is renewed in the same write: a lease that is lost takes its word along.

        A word that came before we heard of its lease waits for a period; one of an earlier lease is dropped.
        """
        taken = []
        for lease in leases:
            word = self._progress.pop(lease.row_id, None)
            if word is not None and word.lease_token == lease.token:
                taken.append((lease.row_id, word.text))
        oldest_ns = now_ns - 2 * self._renew_period_ns
        self._progress = {row_id: word for row_id, word in self._progress.items() if word.said_at_ns >= oldest_ns}
        return tuple(taken)
