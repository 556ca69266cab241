"""RetentionActor: removes what the settings say is old enough, once soon after the start and then periodically.

    Begin ──▶ ages from the settings ──▶ piece ──(pause, at least as long as it took)──▶ piece … ──▶ files ──▶ one row
                                                                                                  in the audit log

It writes on a connection of its own: a piece holds the writer for a moment, and the node's commits wait for it as for
those of any other process. Of several nodes on a root one does a round at a time. What a round left out, because the
node ended or the store refused, the next one finds. The rules are in ``relaymesh.core.retention``.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from typing import Any, Protocol, assert_never

from actors.base import Actor
from actors.store_needs import NodeFacts
from actors.timer import Timers
from relaymesh.audit import AuditTrail
from relaymesh.core.retention import Ages, Pace, ages_of, next_pace, pause_ns
from relaymesh.errors import RelayMeshError
from relaymesh.file_lock import Hold, holding
from relaymesh.settings import Settings, load_settings
from relaymesh.store.audit_key import anchor_audit_key
from relaymesh.store.cleanup import purge_files, tell
from relaymesh.store.lease_report import drop_reports
from relaymesh.store.purge import Purge, local_day
from relaymesh.store.store import Store
from relaymesh.store.sweep import sweep
from relaymesh.wire.store import RetentionBegin, RetentionPiece

__all__ = ["FIRST_NS", "GUARD", "RetentionActor", "RetentionNeeds"]

log = logging.getLogger("relaymesh.retention")

FIRST_NS = 5_000_000_000
"""The first round waits so long: a node that has just come up has other things to do."""
OFF_NS = 60_000_000_000
"""How long until the settings are looked at again when they say that there are no rounds."""
GUARD = "retention.guard"


class RetentionNeeds(Protocol):
    """What the RetentionActor asks of the rest of the node."""

    def now_ms(self) -> int: ...


class _StopWantedError(Exception):
    """Something is in the mailbox while we read: most likely our end."""


class RetentionActor(Actor):
    """See the module."""

    takes = RetentionBegin | RetentionPiece

    def __init__(self, facts: NodeFacts, needs: RetentionNeeds, timers: Timers, settings: Settings) -> None:
        super().__init__()
        self._facts = facts
        self._needs = needs
        self._timers = timers
        self._settings = settings
        self._round: Purge | None = None
        self._ages = Ages()
        self._pace = Pace()
        self._held = contextlib.ExitStack()
        self._unswept = False
        self._segments = 0
        self._trail = AuditTrail(facts.root, facts.namespace, masked_fields=facts.masked_fields)

    def started(self) -> None:
        facts = self._facts
        self._store = Store.open(
            facts.root, namespace=facts.namespace, now_ms=self._needs.now_ms(), durability=facts.durability
        )
        self._timers.after(FIRST_NS, self.address, RetentionBegin(), key="begin")

    def stopping(self) -> None:
        self._timers.cancel(self.address, "begin")
        self._timers.cancel(self.address, "piece")
        self._held.close()
        self._store.close()

    def crashed(self) -> None:
        self._held.close()
        if hasattr(self, "_store"):
            self._store.close()

    def receive(self, message: Any) -> None:
        match message:
            case RetentionBegin():
                self._begin()
            case RetentionPiece():
                self._piece()
            case _:
                assert_never(message)

    def _begin(self) -> None:
        with contextlib.suppress(RelayMeshError):  # a bad file keeps the old values; others raise the alert
            self._settings = load_settings(self._facts.root)
        if self._settings.retention_interval_ms == 0:
            self._begin_in(OFF_NS)
            return
        try:
            ours = self._held.enter_context(holding(self._facts.root / "run" / GUARD, Hold.EXCLUSIVE))
        except OSError as error:
            log.warning("a round of retention could not begin: %s", error)
            ours = False
        if not ours:
            self._round_over()
            return
        self._look_at_key()
        self._ages = ages_of(self._settings, self._needs.now_ms())
        self._segments = 0
        self._round = Purge(self._store, self._ages, now_ms=self._needs.now_ms)
        self._piece()

    def _piece(self) -> None:
        if self._round is None:
            return
        try:
            rows = self._round.piece(self._pace.rows)
            if rows is None and self._drop_segment():
                rows = 0  # nothing about the pace of rows was learnt
            if rows is None:
                self._finish(self._round)
                self._round_over()
                return
        except (RelayMeshError, OSError, EOFError, zlib.error) as error:
            log.warning("a round of retention stopped, the next one goes on: %s", error)
            self._round_over()
            return
        worked_ns = self._round.worked_ns
        self._pace = next_pace(self._pace, rows=rows, took_ns=self._round.held_ns)
        self._timers.after(pause_ns(worked_ns), self.address, RetentionPiece(), key="piece")

    def _look_at_key(self) -> None:
        try:
            problem = anchor_audit_key(self._store, now_ms=self._needs.now_ms())
        except (RelayMeshError, OSError, EOFError, ValueError, zlib.error) as error:
            problem = f"the key of the audit log could not be looked at: {error}"
        if problem:
            log.error("%s", problem)

    def _drop_segment(self) -> bool:
        """Remove the oldest segment of the audit log if it is old enough; return whether."""
        before_ms = self._ages.segments_before_ms
        gone = 0 if before_ms is None else self._trail.drop_before(before_ms, at_most=1)
        self._segments += gone
        return gone > 0

    def _finish(self, done: Purge) -> None:
        ages, store = self._ages, self._store
        first_day = local_day(ages.done_before_ms) if ages.done_before_ms is not None else ""
        days, dead, retried = purge_files(store.root, first_day, (ages.dead_before_ms or 0) / 1000)
        drop_reports(store.root, ages.conflicts_before_ms)
        self._unswept |= done.purged.named_payloads > 0
        if self._unswept:
            try:
                self._unswept = sweep(store, now_ms=self._needs.now_ms(), pause=self._look_up).held_off
            except _StopWantedError:
                log.info("unused payload files are left to the next round")
        if done.purged.rows or done.purged.keys or days or dead or retried or self._segments:
            tell(
                store,
                self._trail,
                self._facts.node_id,
                done.purged,
                days,
                dead,
                retried,
                files_are_messages=self._settings.bus_mode == "files",
                segments=self._segments,
            )

    def _look_up(self) -> None:
        if not self.mailbox_empty():
            raise _StopWantedError

    def _round_over(self) -> None:
        self._round = None
        self._held.close()
        self._begin_in(max(1_000, self._settings.retention_interval_ms) * 1_000_000)

    def _begin_in(self, delay_ns: int) -> None:
        self._timers.after(delay_ns, self.address, RetentionBegin(), key="begin")
