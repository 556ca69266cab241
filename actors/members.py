"""What the StoreActor does about members: its own standing, heartbeats, and the rounds that judge and prune the others.

The rules are in ``relaymesh.core.mesh``; the statements in ``relaymesh.store.member`` and ``grave``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from actors.audit_rows import AuditRowsOf
from relaymesh.audit.member import MemberRound
from relaymesh.core.mesh.local import Local, MemberRules
from relaymesh.core.plural import counted, verb
from relaymesh.store.counter import WORKER_PAUSED, counters
from relaymesh.store.grave import prune_by
from relaymesh.store.member import Marked, reconcile, status_of
from relaymesh.store.store import Store
from relaymesh.wire.store import LocalVerdict, RunMaintenance, WriteNode

__all__ = ["OwnStanding", "round_of_members"]

log = logging.getLogger("relaymesh.members")


class OwnStanding:
    """Whether this node's worker may take steps. ``reason`` is why not, "" while it may.

    What answers with a bool says whether a pause has just begun. tell: called with the reason whenever that changes.
    """

    def __init__(self, node_id: str, rules: Callable[[], MemberRules], tell: Callable[[str], None]) -> None:
        self.reason = ""
        self._node_id = node_id
        self._rules = rules
        self._local = Local(node_id)
        self._tell = tell

    def judged(self, verdict: LocalVerdict) -> bool:
        """Take the mesh's own judgement in."""
        self._local.cut_off = "" if verdict.alive else verdict.reason or "no reason given"
        return self.settle()

    def look(self, store: Store) -> bool:
        """Read the node's word in the member table, which another process may have changed."""
        with store.reading():
            self.registered(store)
        return self.settle()

    def registered(self, store: Store) -> None:
        """Read it, in the caller's transaction; it counts from ``settle`` on."""
        self._local.status = status_of(store.conn, self._node_id) or ""

    def beat(self, store: Store, node: WriteNode, audit: AuditRowsOf, now_ms: int) -> bool:
        """Write the node's heartbeat; return False when a later generation of it has taken over."""
        found = store.write_heartbeat(node, now_ms=now_ms, patience=self._rules().patience)
        if found is None:
            return False
        assert found.row is not None, "its own heartbeats are never older than what it wrote"
        self._local.status = found.row.status
        if found.suppressed:
            audit.held_back(found.row.status)
        return True

    def record(self, store: Store, audit: AuditRowsOf) -> None:
        """Count and record the pause that has begun, in the caller's transaction."""
        store.add_counter(WORKER_PAUSED, 1)
        total = counters(store.conn).get(WORKER_PAUSED, 0)
        audit.paused(self._local.status or "UNKNOWN", self.reason, total)

    def settle(self) -> bool:
        """Let count what was heard."""
        reason = self._local.why_paused(self._rules())
        if reason == self.reason:
            return False
        begins = not self.reason
        self.reason = reason
        if not reason:
            log.warning("the worker of %s takes steps again", self._node_id)
        elif begins:
            log.warning("the worker of %s is paused: %s", self._node_id, reason)
        self._tell(reason)
        return begins


def round_of_members(store: Store, order: RunMaintenance, rules: MemberRules, now_ms: int) -> MemberRound:
    """Judge the silent and prune those who are long gone, as far as the round asks for it."""
    marked = Marked()
    pruned: tuple[str, ...] = ()
    record = None
    if order.judge_members:
        marked = reconcile(store.conn, now_ms=now_ms, patience=rules.patience)
        _say(marked.suspected, "SUSPECT")
        _say(marked.dead, "DEAD")
    if order.prune_members:
        pruned, record = prune_by(store.conn, rules, now_ms=now_ms)
        if pruned:
            were = verb(len(pruned), "was", "were")
            gone = f"{counted(len(pruned), 'member')} that {were} long gone {were} removed"
            log.warning("%s: %s", gone, ", ".join(pruned[:8]))
    return MemberRound(marked, pruned, record)


def _say(members: Sequence[tuple[str, int]], status: str) -> None:
    for node_id, silent_ms in members[:8]:
        log.warning("nothing was heard of the node %s for %.1f s: it is %s", node_id, silent_ms / 1000, status)
    if len(members) > 8:
        log.warning("%d more nodes are %s", len(members) - 8, status)
