"""How long this node may believe that it owns the steps it runs.

The store decides who owns a step. This machine, one per node, only decides how long the store's last answer can be
trusted, and when to ask again. For each lease::

                 Claimed                    Tick: a third of the lease is over
    (not held) ──────────▶ HELD ──────────────────────────────────────────────▶ HELD, asked
         ▲                  │ ▲      Renewed: trusted from the moment we asked      │
         │                  │ └─────────────────────────────────────────────────────┤
         │                  │        RenewFailed: no trust gained, ask again sooner │
         │ Finished         │                                                       │
         ├──────────────────┤                                                       │
         │ Lost, or Tick after the trust ran out ──▶ Abandon                        │
         └──────────────────┴───────────────────────────────────────────────────────┘

Trust counts from the send time of the last confirmed answer and ends ``trust_margin_ns`` before the lease does, while a
judge counts from the receipt of what it saw and waits 3 % longer than the lease (reclaim.py). So a slow answer, a slow
store and clocks whose rates differ by a percent or two only ever shorten what the owner believes: no two nodes trust
one step at one time. See docs/decisions/leases-and-the-monotonic-judge.md.

Renewals are batched: one falls due when the oldest unrenewed lease is one period old, and takes with it every lease
that would be due within half a period. A step that ends before its first renewal costs one dictionary entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

__all__ = [
    "LEASES_MAX",
    "RENEW_PERIOD_MS_MAX",
    "Abandon",
    "AbandonReason",
    "Claimed",
    "Effect",
    "Event",
    "Finished",
    "Leases",
    "Lost",
    "Renew",
    "RenewFailed",
    "Renewed",
    "Tick",
    "TimeoutChanged",
    "renew_period_ns",
    "trust_margin_ns",
]

RENEW_PERIOD_MS_MAX: Final = 2000

LEASES_MAX: Final = 65_536
"""More leases than this on one node are our own bug: claims are made for free slots only."""

_NS_PER_MS: Final = 1_000_000
_FAR_NS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Claimed:
    """The store gave us the lease of a step.

    token, lease_epoch, cluster_epoch: what the claim wrote; every write about the step must present them.
    asked_at_ns: when we asked, not when the answer came, so that a slow answer cannot stretch the trust.
    """

    row_id: int
    token: str
    lease_epoch: int
    cluster_epoch: int
    asked_at_ns: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """The store renewed these leases in answer to the Renew sent at ``asked_at_ns``."""

    row_ids: tuple[int, ...]
    asked_at_ns: int


@dataclass(frozen=True, slots=True)
class RenewFailed:
    """The store could not answer the Renew sent at ``asked_at_ns``; we know no more than before."""

    asked_at_ns: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The store refused a renewal or a result: the step is no longer ours under this lease epoch."""

    row_id: int
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Our lease ended in order: its result is committed, or it was given back."""

    row_id: int
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Due at ``Leases.wake_at_ns``; one that comes early, late or twice is harmless."""


@dataclass(frozen=True, slots=True)
class TimeoutChanged:
    """Leases last this long from now on, in ms. What was confirmed before is trusted as long as it was then: judges go
    on to wait for the former timeout for a while (lease_change.py).
    """

    lease_timeout_ms: int


Event = Claimed | Renewed | RenewFailed | Lost | Finished | Tick | TimeoutChanged


class AbandonReason(Enum):
    """Why a step must be stopped although it did not end."""

    LOST = "lost"
    """The store says that it is not ours."""
    TRUST_RAN_OUT = "trust_ran_out"
    """No renewal was confirmed in time: another node may have it by now."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask the store to renew these leases; answer with Renewed and Lost, or with RenewFailed."""

    leases: tuple[Claimed, ...]
    asked_at_ns: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop the step at once and present no result for it."""

    row_id: int
    lease_epoch: int
    reason: AbandonReason


Effect = Renew | Abandon


def renew_period_ns(lease_timeout_ms: int) -> int:
    """Return the longest time between a claim or renewal and the next: a third of the lease, at most 2 s."""
    return min(lease_timeout_ms * _NS_PER_MS // 3, RENEW_PERIOD_MS_MAX * _NS_PER_MS)


def trust_margin_ns(lease_timeout_ms: int) -> int:
    """Return how long before the end of a lease its owner gives up.

    10 % of the lease, but at least 1 s, or a quarter of a lease that is too short for that.
    """
    lease_ns = lease_timeout_ms * _NS_PER_MS
    return max(lease_ns // 10, min(1000 * _NS_PER_MS, lease_ns // 4))


class _Held:
    """One lease, what confirmed it last, and when to ask again."""

    __slots__ = ("ask_at_ns", "lease", "trusted_until_ns")

    def __init__(self, lease: Claimed, ask_at_ns: int, trusted_until_ns: int) -> None:
        self.lease = lease
        self.trusted_until_ns = trusted_until_ns
        self.ask_at_ns = ask_at_ns


class Leases:
    """All leases that this node holds.

    lease_timeout_ms: how long a lease lasts without renewal; at least 100, equal on every node of a root.

    Raises ValueError for a shorter lease: its margins would be smaller than what a scheduler takes away.
    """

    def __init__(self, *, lease_timeout_ms: int) -> None:
        self._set_timeout(lease_timeout_ms)
        self._held: dict[int, _Held] = {}
        self._wake_at_ns = _FAR_NS

    def __len__(self) -> int:
        return len(self._held)

    @property
    def wake_at_ns(self) -> int | None:
        """When the next Tick is due, None while nothing is held. Never too late, sometimes too early."""
        return self._wake_at_ns if self._held else None

    def trusted(self, now_ns: int, row_id: int, lease_epoch: int) -> bool:
        """Say whether we may still act as the owner of the step under this lease epoch."""
        held = self._held.get(row_id)
        return held is not None and held.lease.lease_epoch == lease_epoch and now_ns < held.trusted_until_ns

    def held_since(self, before_ns: int) -> tuple[Claimed, ...]:
        """Return the leases that were claimed before this time."""
        return tuple(held.lease for held in self._held.values() if held.lease.asked_at_ns < before_ns)

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one event; return what to do about it, in order."""
        match event:
            case Claimed():
                return self._claimed(event)
            case Finished(row_id, lease_epoch):
                self._drop(row_id, lease_epoch)
                return []
            case Renewed(row_ids, asked_at_ns):
                self._confirm(row_ids, asked_at_ns)
                return []
            case RenewFailed(asked_at_ns):
                self._ask_again_soon(now_ns, asked_at_ns)
                return []
            case Lost(row_id, lease_epoch):
                if self._drop(row_id, lease_epoch):
                    return [Abandon(row_id, lease_epoch, AbandonReason.LOST)]
                return []
            case Tick():
                return [*self._give_up(now_ns), *self._renew(now_ns)]
            case TimeoutChanged(lease_timeout_ms):
                self._set_timeout(lease_timeout_ms)
                self._ask_within_a_period(now_ns)
                return []
        assert_never(event)

    def _set_timeout(self, lease_timeout_ms: int) -> None:
        if lease_timeout_ms < 100:
            raise ValueError(f"lease_timeout_ms must be at least 100, not {lease_timeout_ms}")
        self._period_ns = renew_period_ns(lease_timeout_ms)
        self._trust_ns = lease_timeout_ms * _NS_PER_MS - trust_margin_ns(lease_timeout_ms)

    def _ask_within_a_period(self, now_ns: int) -> None:
        for held in self._held.values():
            held.ask_at_ns = min(held.ask_at_ns, now_ns + self._period_ns)
            self._wake_at_ns = min(self._wake_at_ns, held.ask_at_ns)

    def _claimed(self, lease: Claimed) -> list[Effect]:
        before = self._held.get(lease.row_id)
        if before is not None and before.lease.lease_epoch >= lease.lease_epoch:
            return []  # overtaken by a later claim of the same step
        assert len(self._held) < LEASES_MAX
        held = _Held(lease, lease.asked_at_ns + self._period_ns, lease.asked_at_ns + self._trust_ns)
        self._held[lease.row_id] = held
        self._wake_at_ns = min(self._wake_at_ns, held.ask_at_ns)
        if before is not None:
            return [Abandon(lease.row_id, before.lease.lease_epoch, AbandonReason.LOST)]
        return []

    def _drop(self, row_id: int, lease_epoch: int) -> bool:
        """Forget a lease; False when it is not held, or the news is about a former lease of the same step."""
        held = self._held.get(row_id)
        if held is None or held.lease.lease_epoch != lease_epoch:
            return False
        del self._held[row_id]
        return True

    def _confirm(self, row_ids: Iterable[int], asked_at_ns: int) -> None:
        for row_id in row_ids:
            held = self._held.get(row_id)
            if held is not None:
                # Answers may overtake each other; an older one takes nothing back.
                held.trusted_until_ns = max(held.trusted_until_ns, asked_at_ns + self._trust_ns)

    def _ask_again_soon(self, now_ns: int, asked_at_ns: int) -> None:
        again_at_ns = now_ns + self._period_ns // 4
        for held in self._held.values():
            if held.ask_at_ns == asked_at_ns + self._period_ns:
                held.ask_at_ns = min(held.ask_at_ns, again_at_ns)
                self._wake_at_ns = min(self._wake_at_ns, again_at_ns)

    def _give_up(self, now_ns: int) -> list[Effect]:
        lost = [held.lease for held in self._held.values() if now_ns >= held.trusted_until_ns]
        for lease in lost:
            del self._held[lease.row_id]
        return [Abandon(lease.row_id, lease.lease_epoch, AbandonReason.TRUST_RAN_OUT) for lease in lost]

    def _renew(self, now_ns: int) -> list[Effect]:
        if not self._held:
            self._wake_at_ns = _FAR_NS
            return []
        batch: list[Claimed] = []
        if min(held.ask_at_ns for held in self._held.values()) <= now_ns:
            for held in self._held.values():
                if held.ask_at_ns <= now_ns + self._period_ns // 2:
                    held.ask_at_ns = now_ns + self._period_ns
                    batch.append(held.lease)
        self._wake_at_ns = min(min(held.ask_at_ns, held.trusted_until_ns) for held in self._held.values())
        return [Renew(tuple(batch), now_ns)] if batch else []
