"""ObserverActor: what a node says about itself, and the alerts of the root.

Every 5 s it writes the node's report into ``run/`` (relaymesh/wire/node_report.py), and takes one reading of each alert
rule. The rules and the machine behind them are in ``relaymesh.core``; the state is shared by all nodes of the root, so
the store is asked to write it over the version that was read, and only whose write was taken tells of the change.
Once per UTC hour it writes the report of lease conflicts, unless another node has. Where very much is open or did not
succeed it keeps that counted, piece by piece, so that nobody who asks has to wait for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from actors.address import Address
from actors.base import Actor
from actors.reply import Reply
from actors.store_needs import NodeFacts
from actors.timer import Timers
from relaymesh.audit import AuditTrail
from relaymesh.core.alert import Change, Phase, State, evaluate
from relaymesh.core.alert_rule import RULES, readings
from relaymesh.core.plural import counted
from relaymesh.core.slo import Levels
from relaymesh.errors import RelayMeshError
from relaymesh.ownership import hourly_report
from relaymesh.store.alert import ALERT_LOG, Alerts, append_changes, encode_states, load_alerts
from relaymesh.store.count_keeper import CountKeeper
from relaymesh.store.counter import REPLICATION_LAG_MS, counters
from relaymesh.store.database import Database
from relaymesh.store.disk import free_disk_bytes
from relaymesh.store.latency import latencies
from relaymesh.store.node_report import remove_report, write_report
from relaymesh.store.progress import stalled_ms
from relaymesh.store.stats import dead_letter_growth_1h, queue_lag_ms
from relaymesh.wire.node_report import NodeReport
from relaymesh.wire.store import CountOn, ObserveTick, WriteAlerts

__all__ = ["ObserverActor", "ObserverNeeds"]

log = logging.getLogger("relaymesh.alerts")

TICK_NS = 5_000_000_000
# Soon after the start, so that a look at a node that has just come up finds it.
FIRST_NS = 500_000_000


class ObserverNeeds(Protocol):
    """What the ObserverActor asks of the rest of the node."""

    def now_ms(self) -> int: ...
    def report(self) -> NodeReport: ...
    def targets(self) -> Levels: ...
    def min_free_disk_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Order:
    """A state that the store was asked to write, and its answer when there is one."""

    changes: list[Change]
    reply: Reply


class ObserverActor(Actor):
    """See the module."""

    takes = ObserveTick | CountOn

    def __init__(self, facts: NodeFacts, needs: ObserverNeeds, timers: Timers, store: Address) -> None:
        super().__init__()
        self._facts = facts
        self._needs = needs
        self._timers = timers
        self._store = store
        self._order: _Order | None = None
        self._data_version = -1
        self._latencies = (0, 0)
        self._complained = False
        self._reported_hour = -1

    def started(self) -> None:
        facts = self._facts
        self._audit = AuditTrail(facts.root, facts.namespace, masked_fields=facts.masked_fields)
        self._reads = Database.open(facts.root, namespace=facts.namespace, now_ms=self._needs.now_ms())
        self._counts = CountKeeper(self._reads)
        self._timers.after(FIRST_NS, self.address, ObserveTick(), key="first")
        self._timers.every(TICK_NS, self.address, ObserveTick(), key="tick")

    def stopping(self) -> None:
        self._timers.cancel(self.address, "first")
        self._timers.cancel(self.address, "tick")
        self._timers.cancel(self.address, "count")
        self._counts.stop()
        self._told()
        remove_report(self._facts.root / "run", self._facts.node_id)
        self._reads.close()

    def crashed(self) -> None:
        if hasattr(self, "_reads"):
            self._reads.close()

    def receive(self, message: Any) -> None:
        match message:
            case ObserveTick():
                self._write_report()
                try:
                    self._told()
                    if self._order is None:
                        self._look()
                except RelayMeshError as error:
                    log.warning("the alerts could not be looked at (%s): %s", error.code, error)
                self._report_conflicts()
                if not self._counts.counts:
                    self._count(begins=True)
            case CountOn():
                self._count()
            case _:
                assert_never(message)

    def _write_report(self) -> None:
        try:
            write_report(self._facts.root / "run", self._needs.report())
            self._complained = False
        except OSError as error:
            if not self._complained:  # a full disk stays full for many ticks
                log.warning("the report of this node cannot be written: %s", error)
            self._complained = True

    def _count(self, *, begins: bool = False) -> None:
        """Do a piece of counting what is too much to be counted by who asks (relaymesh.store.count_cache)."""
        now_ms = self._needs.now_ms()
        try:
            if begins and not self._counts.begin(now_ms):
                return
            pause_ns = self._counts.piece(now_ms) if self._counts.counts else None
        except (RelayMeshError, OSError) as error:
            log.info("tasks and steps could not be counted: %s", error)  # the next tick begins anew
            return
        if pause_ns is not None:
            self._timers.after(pause_ns, self.address, CountOn(), key="count")

    def _report_conflicts(self) -> None:
        now_ms = self._needs.now_ms()
        hour = now_ms // 3_600_000
        if hour == self._reported_hour:
            return
        self._reported_hour = hour  # also when it fails: a full disk is told of once an hour
        try:
            hourly_report(self._reads, self._audit, actor="maintenance", now_ms=now_ms)
        except (RelayMeshError, OSError) as error:
            log.warning("no report of lease conflicts for this hour: %s", error)

    # Alerts.

    def _look(self) -> None:
        now_ms = self._needs.now_ms()
        with self._reads.snapshot():
            alerts = load_alerts(self._reads.conn)
            observed = self._observed(now_ms)
            stalled = stalled_ms(self._reads.conn, self._facts.root / "run", now_ms=now_ms)
        seen = readings(
            observed,
            self._needs.targets(),
            free_bytes=free_disk_bytes(self._facts.root),
            min_free_bytes=self._needs.min_free_disk_bytes(),
            stalled_ms=stalled,
        )
        states, changes = evaluate(RULES, alerts.states, seen, now_ms)
        if changes or _is_news(alerts, states):
            fired = sum(change.what == "fired" for change in changes)
            order = WriteAlerts(encode_states(states), alerts.version, fired)
            self._order = _Order(changes, self._store.ask_later(order))

    def _observed(self, now_ms: int) -> Levels:
        conn = self._reads.conn
        version = self._reads.data_version()
        if version != self._data_version:
            self._data_version, self._latencies = version, latencies(conn)
        p95_ms, p99_ms = self._latencies
        return Levels(
            queue_lag_ms=queue_lag_ms(conn, now_ms),
            step_p95_ms=p95_ms,
            step_p99_ms=p99_ms,
            dead_growth_1h=dead_letter_growth_1h(conn, now_ms),
            replication_lag_ms=counters(conn).get(REPLICATION_LAG_MS, 0),
        )

    def _told(self) -> None:
        """Tell of what changed, once it is on disk and ours."""
        if self._order is None or not self._order.reply.settled:
            return
        order, self._order = self._order, None
        try:
            ours = order.reply.wait(0)
        except RelayMeshError:  # the store has logged it, and wrote nothing: the next look says the same
            return
        if not ours or not order.changes:
            return
        facts = self._facts
        for change in order.changes:
            level = logging.INFO if change.what == "recovered" else logging.WARNING
            log.log(
                level,
                "alert %s %s (%s): %d, target %d",
                change.rule,
                change.what,
                change.severity,
                change.observed,
                change.target,
                extra={"rule": change.rule, "node_id": self._facts.node_id},
            )
        self._audit.record(
            "slo.evaluate",
            actor="runtime",
            resource="runtime/slo",
            result="alert" if any(change.what != "recovered" for change in order.changes) else "ok",
            details={
                "namespace": facts.namespace,
                "alerts": [f"{change.rule} {change.what}" for change in order.changes],
                "total_fired": sum(change.what == "fired" for change in order.changes),
                "output": ALERT_LOG,
            },
        )
        try:
            append_changes(facts.root, order.changes, node_id=facts.node_id, namespace=facts.namespace)
        except OSError as error:
            log.warning("%s of alerts cannot be written down: %s", counted(len(order.changes), "change"), error)


def _is_news(alerts: Alerts, states: dict[str, State]) -> bool:
    """Whether a window is open, or was: a root where all is well writes nothing."""
    return any(
        state.phase is not Phase.OK or alerts.states.get(name, state).phase is not Phase.OK
        for name, state in states.items()
    )
