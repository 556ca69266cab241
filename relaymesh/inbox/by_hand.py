"""A round of the inbox by hand, for a root without a running node: what a node does by itself all the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from relaymesh.audit import AuditTrail
from relaymesh.core.ident import Ids
from relaymesh.inbox.intake import Intake
from relaymesh.inbox_gate import InboxGate
from relaymesh.store.error import StoreIOError
from relaymesh.store.inbox_files import FileOps, InboxFiles
from relaymesh.store.message_files import MessageFiles
from relaymesh.store.node_row import live_nodes
from relaymesh.store.presence import host_name, is_alive, take_presence
from relaymesh.store.store import Store
from relaymesh.wire.store import NewTask

__all__ = ["FILES_MAX", "inbox_round"]

FILES_MAX = 50_000
"""Files that one round stores; the rest is left to the next one."""

Commit = Callable[[Sequence[NewTask]], list[tuple[str, bool]]]
"""Stores tasks; returns ``(task id, deduplicated)`` of each."""


def inbox_round(
    store: Store,
    *,
    ids: Ids,
    now_ms: Callable[[], int],
    known_agents: Callable[[], Iterable[str]],
    audit: AuditTrail,
    keeps_messages: bool = False,
    ops: FileOps | None = None,
    commit: Commit | None = None,
) -> int:
    """Take in the files that lie in the lanes, and put away those whose tasks have ended; return how many were stored.

    keeps_messages: mend the message files as well. ops, commit: for tests that end the process between two steps.

    Raises:
        StoreError, RootError: the database or the disk refused; the rest is left to the next round.
    """
    store_tasks = commit or (lambda tasks: _commit(store, tasks, now_ms()))
    presence = take_presence(store.root / "run", None, default="maintenance")
    try:
        needs = _Needs(ids, now_ms, known_agents)
        gate = InboxGate(store, now_ms, needs.mono_ns)
        intake = Intake(InboxFiles(store.root, presence.node_id, ops), store, needs, audit, gate=gate)
        intake.recover()
        while intake.adopt(lambda owner: _is_gone(store, owner, now_ms())):
            continue
        intake.look()
        while intake.has_more() and not intake.troubled and intake.stored < FILES_MAX:
            batch = intake.batch()
            if batch.entries:
                intake.committed(batch, store_tasks(batch.tasks))
            if not intake.shut:
                intake.look()
        while intake.deliver():
            continue
        if keeps_messages:
            _repair_messages(store)
        trouble = intake.trouble()
        if trouble is not None:
            raise StoreIOError(type(trouble).__name__) from trouble
        return intake.stored
    finally:
        presence.release()


def _commit(store: Store, tasks: Sequence[NewTask], now_ms: int) -> list[tuple[str, bool]]:
    with store.write():
        return store.submit(tasks, now_ms=now_ms)


def _repair_messages(store: Store) -> None:
    """Bring the message files up to date with the database, whatever became of them."""
    files = MessageFiles(store)
    files.find()
    files.repair()
    while files.piece():
        continue


def _is_gone(store: Store, owner: str, now_ms: int) -> bool:
    run = store.root / "run"
    alive = is_alive(run, owner, host_name())
    if alive is not None:
        return not alive
    # Of another machine, or without a lock. Should it live after all, nothing is done twice.
    with store.reading():
        return owner not in {node.node_id for node in live_nodes(store.conn, run, now_ms=now_ms)}


class _Needs:
    """What the intake asks of a command."""

    def __init__(self, ids: Ids, now_ms: Callable[[], int], known_agents: Callable[[], Iterable[str]]) -> None:
        self.now_ms = now_ms
        self.mono_ns = time.monotonic_ns
        self.new_ticket = ids.task
        self.known_agents = known_agents
