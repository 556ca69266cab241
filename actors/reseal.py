"""ResealActor: after a rotation of the payload keys, brings what is stored under the new one.

    ResealBegin ──▶ rotated? ──▶ ResealPiece ──(pause, at least as long as it took)──▶ ResealPiece … ──▶ look later

It writes on a connection of its own, as retention does, and of several nodes on a root one does it at a time. How far
it came is in the database: what a killed node left, another one goes on with (``relaymesh.store.reseal``).
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any, Protocol, assert_never

from actors.base import Actor
from actors.store_needs import NodeFacts
from actors.timer import Timers
from relaymesh.core.retention import Pace, next_pace, pause_ns
from relaymesh.errors import RelayMeshError
from relaymesh.file_lock import Hold, holding
from relaymesh.store.reseal import Reseal, pending
from relaymesh.store.seal import KEYRING
from relaymesh.store.store import Store
from relaymesh.store.sweep import sweep
from relaymesh.wire.store import ResealBegin, ResealPiece

__all__ = ["GUARD", "LOOK_NS", "ResealActor", "ResealNeeds"]

log = logging.getLogger("relaymesh.reseal")

LOOK_NS = 5_000_000_000
"""How long between two looks for a rotation: whether there is a keyring, then one small file and one row."""
FIRST_LOOK_NS = 500_000_000
GUARD = "reseal.guard"


class _StopWantedError(Exception):
    """Something is in the mailbox while we read: most likely our end."""


class ResealNeeds(Protocol):
    """What the ResealActor asks of the rest of the node."""

    def now_ms(self) -> int: ...


class ResealActor(Actor):
    """See the module."""

    takes = ResealBegin | ResealPiece

    def __init__(self, facts: NodeFacts, needs: ResealNeeds, timers: Timers) -> None:
        super().__init__()
        self._facts = facts
        self._needs = needs
        self._timers = timers
        self._store: Store | None = None
        self._pass: Reseal | None = None
        self._pace = Pace()
        self._held = contextlib.ExitStack()
        self._told = ""

    def started(self) -> None:
        # Soon: another node may have been killed while it was at it.
        self._timers.after(FIRST_LOOK_NS, self.address, ResealBegin(), key="begin")

    def stopping(self) -> None:
        self._timers.cancel(self.address, "begin")
        self._timers.cancel(self.address, "piece")
        self._held.close()
        self._close_store()

    def crashed(self) -> None:
        self._held.close()
        self._close_store()

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def receive(self, message: Any) -> None:
        match message:
            case ResealBegin():
                self._begin()
            case ResealPiece():
                self._piece()
            case _:
                assert_never(message)

    def _begin(self) -> None:
        if not (self._facts.root / KEYRING).exists():
            self._over()  # a root that has never encrypted anything costs no more than this look
            return
        try:
            store = self._opened()
            keyring = pending(store)
            if keyring is None or not self._held.enter_context(
                holding(self._facts.root / "run" / GUARD, Hold.EXCLUSIVE)
            ):
                self._over()
                return
        except (RelayMeshError, OSError) as error:
            self._stopped(error)
            return
        self._pass = Reseal(store, keyring)
        self._piece()

    def _opened(self) -> Store:
        if self._store is None:
            facts = self._facts
            self._store = Store.open(
                facts.root, namespace=facts.namespace, now_ms=self._needs.now_ms(), durability=facts.durability
            )
            # What is replaced may be clear text: it must not stay readable in the pages that it leaves.
            self._store.conn.execute("PRAGMA secure_delete=1").fetchall()
        return self._store

    def _piece(self) -> None:
        if self._pass is None:
            return
        began_ns = time.monotonic_ns()
        try:
            rows = self._pass.piece(self._pace.rows, now_ms=self._needs.now_ms())
        except (RelayMeshError, OSError) as error:
            self._stopped(error)
            return
        if rows is None:
            self._sweep(self._pass)
            log.info("texts under the active key: %d brought, %d left", self._pass.changed, self._pass.unread)
            self._over()
            return
        took_ns = time.monotonic_ns() - began_ns
        self._pace = next_pace(self._pace, rows=rows, took_ns=took_ns)
        self._timers.after(pause_ns(took_ns), self.address, ResealPiece(), key="piece")

    def _sweep(self, done: Reseal) -> None:
        """Remove the files that were replaced; young ones are left to who removes what is old, or to ``compact``."""
        if done.files_left:
            try:
                sweep(self._opened(), now_ms=self._needs.now_ms(), pause=self._look_up)
            except (_StopWantedError, RelayMeshError, OSError):
                log.info("replaced payload files are left to the next sweep")

    def _look_up(self) -> None:
        if not self.mailbox_empty():
            raise _StopWantedError

    def _stopped(self, error: Exception) -> None:
        if str(error) != self._told:
            self._told = str(error)
            log.warning("texts are not brought under the active key, this is tried again: %s", error)
        self._over()

    def _over(self) -> None:
        self._pass = None
        self._held.close()
        self._look_later()

    def _look_later(self) -> None:
        self._timers.after(LOOK_NS, self.address, ResealBegin(), key="begin")
