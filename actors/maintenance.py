"""MaintenanceActor: what comes with time. Heartbeat, steps of dead or silent owners, silent members, expiry.

The rules are in ``relaymesh.core.reclaim``, ``mesh.silence`` and ``clock_guard``. It reads on a connection of its own,
and asks the StoreActor to write. An owner on this machine is known to be dead as soon as the operating system dropped
its lock; any other owner when it is DEAD or its lease has run out, and that holds for this node too. Of several nodes
one takes a step back; the others wait for their turn.

What a round came to is told with the next one, when the store has long answered: nobody waits for it.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

import msgspec

from actors.address import Address
from actors.base import Actor
from actors.reply import Reply
from actors.store_needs import NodeFacts
from actors.timer import Timers
from relaymesh.core import clock_guard
from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.mesh.silence import heartbeat_every_ms
from relaymesh.core.plural import counted
from relaymesh.core.reclaim import ROWS_MAX, Cause, Reclaim, RunningRow, Scanned
from relaymesh.errors import RelayMeshError
from relaymesh.node_view import MaintenanceOutcome
from relaymesh.store.clock import load_clock
from relaymesh.store.grave import prune_is_due
from relaymesh.store.member import reclaimers, silent_members
from relaymesh.store.presence import is_alive
from relaymesh.store.recover import running_to_judge
from relaymesh.store.store import Store
from relaymesh.wire.setting import SettingsChanged
from relaymesh.wire.store import MaintenanceDone, MaintenanceTick, RunMaintenance, SeenLease, WriteNode

__all__ = ["MaintenanceActor", "MaintenanceNeeds"]

log = logging.getLogger("relaymesh.maintenance")

TICK_NS = 1_000_000_000
JUDGE_AFTER_BEATS = 3
"""So many heartbeats after its start, and after it stood still itself, a node begins to judge the silence of others."""
STOP_NS = 1_000_000_000
"""A round that comes so much later than the next one should have come has been held up."""
PRUNE_LOOK_NS = 60_000_000_000
"""How often it looks for members to prune, unless the setting asks for it more often."""
_LATER_NS = 5_000_000
_ORDERS_MAX = 16
"""Rounds whose answer has not come yet, at a store that stands still; the counts of older ones are not told."""
_STATUS_OF = """
SELECT s.status, count(*) FROM json_each(?) v JOIN steps s ON s.id=json_extract(v.value, '$[0]')
WHERE s.lease_epoch=json_extract(v.value, '$[1]') GROUP BY s.status
"""


class MaintenanceNeeds(Protocol):
    """What the MaintenanceActor asks of the rest of the node."""

    def now_ms(self) -> int: ...
    def reading(self) -> clock_guard.Reading: ...
    def current_generation(self) -> int: ...
    def member_rules(self) -> MemberRules: ...
    def renewals(self) -> int: ...
    def maintained(self, done: MaintenanceOutcome) -> None: ...


@dataclass(frozen=True, slots=True)
class _Order:
    """What the store was asked to take back, and its answer when there is one."""

    dead: list[SeenLease]
    expired: list[SeenLease]
    reply: Reply


class MaintenanceActor(Actor):
    """See the module. reclaims: False leaves lost steps and late tasks to other nodes; heartbeats go on."""

    takes = MaintenanceTick | SettingsChanged

    def __init__(
        self,
        facts: NodeFacts,
        needs: MaintenanceNeeds,
        timers: Timers,
        store: Address,
        *,
        lease_timeout_ms: int,
        reclaim_max: int,
        reclaims: bool = True,
    ) -> None:
        super().__init__()
        self._facts = facts
        self._needs = needs
        self._timers = timers
        self._store = store
        self._lease_timeout_ms = lease_timeout_ms
        self._judge = Reclaim(lease_timeout_ms=lease_timeout_ms, expire_max=reclaim_max, node_id=facts.node_id)
        self._clock: clock_guard.ClockState | None = None
        self._set_back = False
        self._beat_at_ns = self._prune_at_ns = self._period_ns = 0
        self._ticked_at_ns = self._judges_at_ns = 0
        self._reclaims = reclaims
        self._orders: deque[_Order] = deque(maxlen=_ORDERS_MAX)
        self._renewals = needs.renewals()

    def started(self) -> None:
        self._reads = Store.open(self._facts.root, namespace=self._facts.namespace, now_ms=self._needs.now_ms())
        # What the process before us knew: without it, one that starts right after a jump would believe the wall clock.
        self._clock = load_clock(self._reads.conn)
        self._read_clocks()
        # The first one soon, so that the clock's state is there for whoever starts next.
        self._set_timer()
        self._ticked_at_ns = self._timers.now_ns()
        self._wait_to_judge()

    def stopping(self) -> None:
        self._timers.cancel(self.address, "tick")
        self._timers.cancel(self.address, "due")
        self._reads.close()

    def crashed(self) -> None:
        if hasattr(self, "_reads"):
            self._reads.close()

    def receive(self, message: Any) -> None:
        match message:
            case MaintenanceTick():
                self._notice_stop()
                # First, so that a node which stood still does not judge itself.
                self._beat()
                try:
                    if self._reclaims:
                        self._scan()
                    else:
                        self._read_clocks()
                except RelayMeshError as error:
                    log.warning("a round of maintenance could not read the store (%s): %s", error.code, error)
                self._set_timer()
            case SettingsChanged(_, judge_lease_ms, reclaim_max):
                self._lease_timeout_ms = judge_lease_ms
                self._judge.change(lease_timeout_ms=judge_lease_ms, expire_max=reclaim_max)
            case _:
                assert_never(message)

    def _set_timer(self) -> None:
        """Keep the period of the rounds: shorter when heartbeats must be."""
        period_ns = min(TICK_NS, self._beat_ms() * 1_000_000)
        if period_ns != self._period_ns:
            self._period_ns = period_ns
            self._timers.every(period_ns, self.address, MaintenanceTick(), key="tick")

    def _beat_ms(self) -> int:
        return heartbeat_every_ms(self._needs.member_rules().patience)

    def _beat(self) -> None:
        now_ns = self._timers.now_ns()
        if now_ns >= self._beat_at_ns and self._needs.current_generation():
            # With the round that comes nearest, be that a little early.
            self._beat_at_ns = now_ns + self._beat_ms() * 1_000_000 - self._period_ns // 2
            self._store.tell(self._heartbeat())

    def _heartbeat(self) -> WriteNode:
        facts = self._facts
        return WriteNode(
            facts.node_id, self._needs.current_generation(), "ALIVE", facts.agents, clock=self._clock_fields()
        )

    def _clock_fields(self) -> tuple[int, int, str, int, int] | None:
        clock = self._clock
        if clock is None:
            return None
        return (clock.wall_ms, clock.mono_ns, clock.boot_id, clock.doubted_ticks, clock.doubted_until_ns)

    def _read_clocks(self) -> tuple[clock_guard.Reading, bool]:
        """Read both clocks; return the reading, and whether its wall time may be used to judge leases."""
        reading = self._needs.reading()
        verdict = clock_guard.tick(self._clock, reading, self._lease_timeout_ms)
        self._clock = verdict.state
        if verdict.jumped_by_ms:
            log.warning(
                "the wall clock jumped by %d ms: leases are judged by the monotonic clock only for a while",
                verdict.jumped_by_ms,
            )
            self._set_back |= verdict.jumped_by_ms < 0
        return reading, verdict.believed

    def _scan(self) -> None:
        reading, believed = self._read_clocks()
        # Our own as well: a lease that we stopped trusting, or that an old cluster epoch holds, is renewed by nobody.
        with self._reads.reading():
            conn, own = self._reads.conn, self._facts.node_id
            seen = running_to_judge(conn, own=own, now_ms=reading.wall_ms, limit=ROWS_MAX)
        self._tell()
        rows = [
            RunningRow(s.row_id, s.lease_token or "", s.updated_at_ms, s.owner, s.lease_epoch, s.step_id) for s in seen
        ]
        owners = {row.owner for row in rows}
        marked = self._reads.nodes_marked_dead() - {self._facts.node_id} if owners else frozenset()
        scanned = Scanned(
            rows=rows,
            asked_at_ns=reading.mono_ns,
            wall_ms=reading.wall_ms if believed else None,
            dead_owners=frozenset(owner for owner in owners if owner in marked or self._is_dead(owner)),
            reclaimers=self._reclaimers(reading.wall_ms) if rows else frozenset(),
        )
        by_row = {s.row_id: s for s in seen}
        dead: list[SeenLease] = []
        expired: list[SeenLease] = []
        for expire in self._judge.handle(self._timers.now_ns(), scanned):
            (dead if expire.cause is Cause.DEAD_OWNER else expired).append(by_row[expire.row.row_id])
        self._come_back()
        judges, prunes = believed and self._has_silent(reading.wall_ms), self._prunes(reading.wall_ms)
        if dead or expired or judges or prunes or self._set_back or self._reads.has_expired(now_ms=reading.wall_ms):
            for cause, leases in (("died", dead), ("went silent", expired)):
                if leases:
                    log.warning(
                        "taking %s from nodes that %s: %s", counted(len(leases), "step"), cause, _owners(leases)
                    )
            order = RunMaintenance(tuple(expired), tuple(dead), self._set_back, judges, prunes)
            self._orders.append(_Order(dead, expired, self._store.ask_later(order)))
            self._set_back = False

    def _come_back(self) -> None:
        """Look again when the next lease is over, if that is before the next round."""
        due_ns = self._judge.due_ns
        if due_ns is not None and 0 <= due_ns - self._timers.now_ns() < self._period_ns:
            self._timers.after(due_ns - self._timers.now_ns() + _LATER_NS, self.address, MaintenanceTick(), key="due")

    # Members.

    def _notice_stop(self) -> None:
        """Whoever stood still itself heard nobody meanwhile."""
        last_ns, self._ticked_at_ns = self._ticked_at_ns, self._timers.now_ns()
        if self._ticked_at_ns - last_ns > 2 * self._period_ns + STOP_NS:
            self._wait_to_judge()

    def _wait_to_judge(self) -> None:
        """Give the others time for a heartbeat: after an outage of all, or a stop of this node, each seems silent."""
        self._judges_at_ns = self._timers.now_ns() + JUDGE_AFTER_BEATS * self._beat_ms() * 1_000_000

    def _has_silent(self, wall_ms: int) -> bool:
        if self._timers.now_ns() < self._judges_at_ns:
            return False
        with self._reads.reading():
            return bool(silent_members(self._reads.conn, now_ms=wall_ms, patience=self._needs.member_rules().patience))

    def _prunes(self, wall_ms: int) -> bool:
        rules, now_ns = self._needs.member_rules(), self._timers.now_ns()
        if now_ns < self._prune_at_ns:
            return False
        self._prune_at_ns = now_ns + min(PRUNE_LOOK_NS, max(TICK_NS, rules.prune_interval_ms * 1_000_000))
        with self._reads.reading():
            return prune_is_due(self._reads.conn, rules, now_ms=wall_ms)

    def _reclaimers(self, wall_ms: int) -> frozenset[str]:
        with self._reads.reading():
            return reclaimers(self._reads.conn, self._facts.root / "run", now_ms=wall_ms, beat_ms=self._beat_ms())

    # What came of it.

    def _tell(self) -> None:
        """Tell what the round before came to, and how many of our leases were renewed since."""
        renewals = self._needs.renewals()
        renewed, self._renewals = renewals - self._renewals, renewals
        counts: Counter[str] = Counter()
        while self._orders and self._orders[0].reply.settled:
            counts.update(self._counts_of(self._orders.popleft()))
        if renewed or counts.total():
            self._needs.maintained(
                MaintenanceOutcome(
                    node_id=self._facts.node_id,
                    lease_heartbeats=renewed,
                    dead_owner_reclaimed=counts["dead_owner_reclaimed"],
                    dead_owner_retry_scheduled=counts["dead_owner_retry_scheduled"],
                    dead_owner_dead_lettered=counts["dead_owner_dead_lettered"],
                    wall_reclaimed=counts["wall_reclaimed"],
                    wall_retry_scheduled=counts["wall_retry_scheduled"],
                    wall_dead_lettered=counts["wall_dead_lettered"],
                    suspected_nodes_marked=counts["suspected"],
                    dead_nodes_marked=counts["dead"],
                    dead_nodes_pruned=counts["pruned"],
                )
            )

    def _counts_of(self, order: _Order) -> dict[str, int]:
        try:
            done = order.reply.wait(0)
        except RelayMeshError:  # the store has logged it, and took nothing
            return {}
        assert isinstance(done, MaintenanceDone)
        counts = {"suspected": done.suspected, "dead": done.dead, "pruned": done.pruned}
        for kind, leases, reclaimed in (
            ("dead_owner", order.dead, done.dead_reclaimed),
            ("wall", order.expired, done.expired_reclaimed),
        ):
            ended = self._ended(leases)
            dead_lettered = min(reclaimed, ended["DEAD_LETTER"])
            counts[f"{kind}_reclaimed"] = reclaimed
            counts[f"{kind}_dead_lettered"] = dead_lettered
            counts[f"{kind}_retry_scheduled"] = max(0, reclaimed - dead_lettered - ended["CANCELLED"])
        return counts

    def _ended(self, leases: Iterable[SeenLease]) -> Counter[str]:
        """Count what those of these steps are that nobody has claimed since."""
        asked = msgspec.json.encode([(lease.row_id, lease.lease_epoch) for lease in leases]).decode()
        with self._reads.reading():
            return Counter(dict(self._reads.conn.execute(_STATUS_OF, (asked,))))

    def _is_dead(self, owner: str) -> bool:
        return owner != self._facts.node_id and is_alive(self._facts.root / "run", owner, self._facts.host) is False


def _owners(leases: list[SeenLease]) -> str:
    return ", ".join(sorted({lease.owner for lease in leases})[:8])
