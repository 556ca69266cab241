"""AuditActor: writes a node's audit rows, in batches, behind everybody's back.

    StoreActor ──rows, after the commit──▶ AuditDesk (bounded) ◀──taken in time── AuditActor ──one write──▶ audit.log
                                               └──RowsWait, for the first of a batch──▶

Rows wait a moment, so that a node under load makes one write of many commits and an idle one does nothing twice. Nobody
waits for them, and only the first row of a batch wakes anybody: under load two threads woken a commit would cost more
than the rows. When more rows wait than the desk holds, new ones are given up and counted, and a row says how many; so
are rows that cannot be made, and no others with them.
What a killed node had not written yet is lost with it; its next start says so in a row, and records the tasks that it
finds in the database and not in the log.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from actors.address import Address
from actors.base import Actor
from actors.timer import Timers
from relaymesh.audit.trail import AuditTrail
from relaymesh.core.plural import counted, verb
from relaymesh.errors import ActorError, RelayMeshError
from relaymesh.wire.audit import Record
from relaymesh.wire.audit_mail import FlushAudit, PackAudit, RecoverSubmits, RowsWait

__all__ = ["BATCH_ROWS", "ROWS_MAX", "AuditActor", "AuditDesk"]

log = logging.getLogger("relaymesh.audit")

ROWS_MAX = 65_536
"""Rows that may wait for the disk, some 30 MB."""
BATCH_ROWS = 4_096
"""Rows that are written at once, however short they have waited."""
WAIT_NS = 25_000_000
"""How long rows wait for others."""
UNMADE_MAX = 128
"""Transactions whose rows are not made yet, each of a few rows; see ``AuditRowsOf``."""
SETTLE_NS = 1_000_000_000
"""How long after the start of a node others may still be writing rows about tasks of its former self's time."""
DEATH_MS = 15_000
"""How long before its last heartbeat the rows of a killed node are looked through: some heartbeats, and a slow disk."""
PACK_NS = 2_000_000_000
"""How long nothing is written before segments are compressed."""

FAULT_KINDS_MAX = 32
"""Kinds of faults in rows that are made later, each logged once; of others nothing is logged, but their rows count."""


@dataclass(frozen=True, slots=True)
class _Later:
    """Rows that are made by who writes them. count: how many."""

    count: int
    make: Callable[[], Sequence[str]]


class AuditDesk:
    """Where rows are handed in; thread-safe, never waits, never raises.

    lost: rows that were given up, over the life of the node.
    """

    def __init__(self, address: Address, rows_max: int = ROWS_MAX) -> None:
        self._address = address
        self._rows_max = rows_max
        self._turn = threading.Lock()
        self._rows: list[str | _Later] = []
        self._waiting = self._unmade = 0
        self._untold = 0
        self._cause = ""
        self._faults: set[str] = set()
        self._knows = False
        self.lost = 0

    def offer(self, bodies: Sequence[str]) -> None:
        """Hand in rows; those for which there is no room are counted."""
        if bodies:
            self._offer(len(bodies), bodies)

    def offer_later(self, count: int, make: Callable[[], Sequence[str]]) -> bool:
        """Hand in so many rows that ``make`` returns to who writes them; False when too many such wait already."""
        if self._unmade >= UNMADE_MAX:
            return False
        if count:
            self._offer(count, (_Later(count, make),))
        return True

    def _offer(self, count: int, rows: Sequence[str | _Later]) -> None:
        with self._turn:
            waiting = self._waiting
            if waiting + count > self._rows_max:
                self._lose(count, "overflow")
                return
            self._rows += rows
            self._waiting += count
            self._unmade += not isinstance(rows[0], str)
            knew, self._knows = self._knows, True
        if knew and not waiting < BATCH_ROWS <= waiting + count:
            return
        try:
            heard = self._address.tell(FlushAudit() if knew else RowsWait())
        except ActorError:
            heard = False
        if not heard:
            self._give_up()

    def died(self, last_heard_ms: int, now_ms: int) -> None:
        """The node's former self ended without a word; ``now_ms`` is after all that it did."""
        with contextlib.suppress(ActorError):
            self._address.tell(RecoverSubmits(last_heard_ms - DEATH_MS, now_ms))

    def take(self) -> tuple[list[str], int, str]:
        """Return the rows that wait, how many were given up and not told of yet, and why the first of those was.

        All are the caller's now. Rows that cannot be made are given up; those beside them are not.
        """
        with self._turn:
            rows, self._rows = self._rows, []
            self._waiting = self._unmade = 0
            self._knows = False
        bodies: list[str] = []
        for row in rows:
            if isinstance(row, str):
                bodies.append(row)
                continue
            try:
                bodies += row.make()
            except Exception as error:  # a fault of ours in one row must not take the rows of other commits with it
                self.gave_up(row.count, "unmade")
                self._log_once(error, row.count)
        with self._turn:
            untold, self._untold = self._untold, 0
            cause, self._cause = self._cause, ""
        return bodies, untold, cause

    def gave_up(self, count: int, cause: str) -> None:
        """These were taken and will not be written."""
        with self._turn:
            self._lose(count, cause)

    def _lose(self, count: int, cause: str) -> None:
        self._untold += count
        self.lost += count
        self._cause = self._cause or cause

    def _log_once(self, error: Exception, count: int) -> None:
        """Say where it came from; not what it says, which may quote what a row was made of."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} in {frame.name}, {frame.filename}:{frame.lineno}"
        if kind in self._faults or len(self._faults) >= FAULT_KINDS_MAX:
            return
        self._faults.add(kind)
        lost = f"{counted(count, 'row')} of the audit log could not be made and {verb(count, 'is', 'are')} lost"
        log.error("%s, a bug in RelayMesh: %s", lost, kind)

    def _give_up(self) -> None:
        """Nobody will come for the rows any more."""
        with self._turn:
            count, self._rows = self._waiting, []
            self._waiting = self._unmade = 0
            self._lose(count, "overflow")
            self._knows = False


class AuditActor(Actor):
    """See the module."""

    takes = RowsWait | FlushAudit | PackAudit | RecoverSubmits

    def __init__(
        self,
        trail: AuditTrail,
        desk: AuditDesk,
        timers: Timers,
        unrecorded: Callable[[int, int], Sequence[Record]] = lambda *_: (),
    ) -> None:
        super().__init__()
        self._unrecorded = unrecorded
        self._trail = trail
        self._desk = desk
        self._timers = timers
        self._in_hand = 0

    def started(self) -> None:
        self._write()  # what waited while nobody was here

    def receive(self, message: Any) -> None:
        match message:
            case RowsWait():
                self._timers.after(WAIT_NS, self.address, FlushAudit(), key="flush")
            case FlushAudit():
                self._write()
            case PackAudit():
                if self._trail.pack(at_most=1):
                    self._timers.after(PACK_NS // 10, self.address, PackAudit(), key="pack")
            case RecoverSubmits(since_ms, before_ms, settled) if not settled:
                again = RecoverSubmits(since_ms, before_ms, settled=True)
                self._timers.after(SETTLE_NS, self.address, again, key="recover")
            case RecoverSubmits(since_ms, before_ms):
                self._recover(since_ms, before_ms)
            case _:
                assert_never(message)

    def stopping(self) -> None:
        self._timers.cancel(self.address, "flush")
        self._timers.cancel(self.address, "pack")
        self._timers.cancel(self.address, "recover")
        self._write()

    def crashed(self) -> None:
        # What was in hand goes with this incarnation; its successor tells of it.
        self._desk.gave_up(self._in_hand, "crash")

    def _write(self) -> None:
        bodies, lost, cause = self._desk.take()
        if bodies or lost:
            self._in_hand = len(bodies) + lost
            self._trail.append(bodies, lost=lost, lost_cause=cause)
            self._in_hand = 0
            self._timers.after(PACK_NS, self.address, PackAudit(), key="pack")

    def _recover(self, since_ms: int, before_ms: int) -> None:
        try:
            records = self._unrecorded(since_ms, before_ms)
        except (RelayMeshError, OSError) as error:
            log.warning("tasks that a killed node did not record could not be looked for: %s", error)
            return
        self._trail.record_many(records)
        if records:
            tasks, are = counted(len(records), "task"), verb(len(records), "is", "are")
            log.warning("%s that the node's former self had not recorded %s recorded now", tasks, are)
