"""What every room of a client stands on: the root, how it is opened, who asks, and the log that says so."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Self

from relaymesh.argument import check_name, check_text, root_of, sources_of
from relaymesh.errors import UnknownAgentError
from relaymesh.store.database import Database
from relaymesh.store.error import RootReadOnlyError
from relaymesh.store.root import DATABASE, normalize_namespace, scoped_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from relaymesh.admission import Gate
    from relaymesh.agents.registry import Registry
    from relaymesh.audit import AuditTrail
    from relaymesh.core.ident import Ids
    from relaymesh.handing import SubmitDesk
    from relaymesh.net.wake import WakeSender
    from relaymesh.scheduling import Schedules
    from relaymesh.settings import Loaded, Settings
    from relaymesh.store.schedule_fire import Fired
    from relaymesh.store.store import Store
    from relaymesh.wire.store import StoreAnswer, SubmitTasks

__all__ = ["Door"]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Door:
    """One opened root, or one that will be opened by the first call; see ``relaymesh.client.Client``."""

    def __init__(
        self,
        root: str | Path = "data",
        *,
        namespace: str = "default",
        agents: Sequence[str] = (),
        actor: str = "cli",
        now_ms: Callable[[], int] = _wall_ms,
        submitter: Callable[[SubmitTasks], StoreAnswer] | None = None,
        gate: Gate = "set",
    ) -> None:
        check_text("namespace", namespace)
        self.namespace = normalize_namespace(namespace)
        self.root = scoped_root(root_of(root), self.namespace)
        self._agents = sources_of(agents)
        check_name("actor", actor)
        self._actor = actor
        self._trail: AuditTrail | None = None
        self._schedules: Schedules | None = None
        self._now_ms = now_ms
        self._fresh_ids: Ids | None = None
        self._submitter = submitter
        self._gate = gate
        self._store: Database | None = None
        self._registry: Registry | None = None
        self._loaded: Loaded | None = None
        self._waker: WakeSender | None = None
        self._submit_desk: SubmitDesk | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; the client may be used again and opens it anew."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._waker is not None:
            self._waker.close()
            self._waker = None
        if self._submit_desk is not None:
            self._submit_desk.close()
            self._submit_desk = None

    def interrupt(self) -> bool:
        """From another thread: break off what the database is being asked; that call raises a StoreError.

        Returns whether there was a database to break it off at.
        """
        store = self._store
        if store is not None:
            store.interrupt()
        return store is not None

    def init(self) -> Path:
        """Make the root's folders and tables, if they are not there; return the scoped root."""
        from relaymesh.store.root import create_layout

        self._writable()
        create_layout(self.root)  # one that is there may have lost a folder
        return self.root

    def agents(self) -> list[str]:
        """Return the ids of the agents that can be submitted to: those known here, and those of running nodes."""
        known = set(self._local_agents().specs)
        store = self._existing()
        if store is not None:
            from relaymesh.store.node_row import live_nodes

            with store.reading():
                for node in live_nodes(store.conn, self.root / "run", now_ms=self._now_ms()):
                    known.update(node.capabilities.pools)
        return sorted(known)

    def unusable_agents(self) -> list[str]:
        """Return a sentence for each entry of ``scripts.json`` and ``retry-policies.json`` that was not taken."""
        return [f"{entry.source} was not taken: {entry.reason}" for entry in self._local_agents().unusable]

    @property
    def audit(self) -> AuditTrail:
        """The audit log of the root, to add records to. Whoever does names who did it."""
        if self._trail is None:
            from relaymesh.audit import AuditTrail

            self._trail = AuditTrail(self.root, self.namespace, now_ms=self._now_ms)
        return self._trail

    def _record_fired(self, ticks: Sequence[Fired]) -> None:
        if ticks:
            from relaymesh.audit.event import fired_bodies

            now_ms = self._now_ms()
            trail, actor = self.audit, self._actor
            masked = trail.masked_names()
            trail.append(fired_bodies(ticks, namespace=self.namespace, actor=actor, now_ms=now_ms, masked=masked))

    def _writable(self, *, create: bool = True) -> Store:
        from relaymesh.store.connection import Durability
        from relaymesh.store.store import Store

        self._leave_astray()
        if not isinstance(self._store, Store):
            durability = Durability(self._config().durability)
            if self._store is not None and not self._store.still:
                # On the same connection: an iterator that this client gave out may still be reading from it.
                self._store = Store(self._store.conn, self.root, self.namespace, None)
            else:
                self._store = Store.open(
                    self.root,
                    namespace=self.namespace,
                    now_ms=self._now_ms(),
                    create=create,
                    durability=durability,
                )
        return self._store

    def _readable(self) -> Database:
        """Open a root that must be there: asking about tasks must not make an empty one by a mistyped --root."""
        self._leave_astray()
        store = self._store
        if store is None or (store.still and not self._lies_still()):
            # A former one is not closed: an iterator that this client gave out may still be reading from it.
            opened = partial(Database.open, self.root, namespace=self.namespace, now_ms=self._now_ms(), create=False)
            try:
                store = opened()
            except RootReadOnlyError:
                if not self._lies_still():
                    raise
                store = opened(read_only=True, still=True)
            self._store = store
        return store

    def _lies_still(self) -> bool:
        from relaymesh.store.still import lies_still

        return lies_still(self.root / DATABASE)

    def _leave_astray(self) -> None:
        """Close a database that is not at its path any more: what is there now is opened."""
        if self._store is not None and self._store.astray():
            self._store.close()
            self._store = self._loaded = None

    @property
    def _ids(self) -> Ids:
        if self._fresh_ids is None:
            from random import Random, SystemRandom

            from relaymesh.core.ident import Ids

            self._fresh_ids = Ids(self._now_ms, Random(SystemRandom().getrandbits(128)))
        return self._fresh_ids

    def _wake(self) -> None:
        """Tell the nodes of this machine that there is something new."""
        if self._waker is None:
            from relaymesh.net.wake import WakeSender

            self._waker = WakeSender(self.root / "run")
        self._waker.wake()

    def _existing(self) -> Database | None:
        from relaymesh.store.root import has_database

        return self._readable() if has_database(self.root) else None

    def _config(self) -> Settings:
        return self._load().settings

    def _load(self) -> Loaded:
        if self._loaded is None:
            from relaymesh.settings import load

            self._loaded = load(self.root)
        return self._loaded

    def _local_agents(self) -> Registry:
        if self._registry is None:
            from relaymesh.agents.registry import load_registry
            from relaymesh.store.root import refuse_file

            refuse_file(self.root)  # else the agents' own files would be what cannot be read
            self._registry = load_registry(self.root, self._agents)
        return self._registry

    def _require_agent(self, name: str) -> None:
        """Raise UnknownAgentError for a name that neither this process nor a running node knows."""
        if name not in self._local_agents().specs and name not in self._node_agents():
            from relaymesh.core.nearest import did_you_mean

            for entry in self._local_agents().unusable:
                if entry.agent_id == name:
                    raise UnknownAgentError(name, f"; {entry.source} was not taken: {entry.reason}")
            raise UnknownAgentError(name, did_you_mean(name, sorted(self._node_agents())))

    def _node_agents(self) -> frozenset[str]:
        now = time.monotonic()
        if now >= self._node_agents_until:
            self._node_agents_known = frozenset(self.agents())
            self._node_agents_until = now + 1.0
        return self._node_agents_known

    _node_agents_known: frozenset[str] = frozenset()
    _node_agents_until: float = 0.0
