"""A running node as seen from outside and by its actors: what it is, what holds, what it counts, and how it ends.

    build (actors/system.py) ──▶ Node ──start──▶ runs ──drain, kill, its actors crash too often──▶ finish ──▶ ended

The tree of actors that it runs is put together in ``actors.system``.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.address import Address
from actors.audit import AuditDesk
from actors.in_force import InForce, lease_timeouts
from actors.measure import Measures
from actors.node_facts import facts_of, slot_counts
from actors.quick_switch import QUICK_SWITCHES
from actors.timer import TimerService
from relaymesh.agents.audit import load_records
from relaymesh.agents.registry import Registry
from relaymesh.audit.trail import AuditTrail
from relaymesh.core.clock_guard import Reading
from relaymesh.core.ident import Ids
from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.slo import Levels
from relaymesh.errors import ActorError
from relaymesh.node import NodeOptions
from relaymesh.node_view import MaintenanceOutcome
from relaymesh.observation import targets_of
from relaymesh.reload import News
from relaymesh.settings import Loaded
from relaymesh.store.claim import ClaimedRow
from relaymesh.store.clock import boot_id
from relaymesh.store.presence import Presence
from relaymesh.wire.node_report import NodeReport
from relaymesh.wire.setting import SettingsChanged
from relaymesh.wire.store import (
    Committed,
    DrainQueue,
    FinishedStep,
    LeaseRef,
    ObserveTick,
    QueueDrained,
    StoreAnswer,
    SubmitTasks,
    WriteNode,
)

if TYPE_CHECKING:
    from actors.mesh import MeshPart
    from actors.tree import Tree
    from relaymesh.otel import Tracing
    from relaymesh.wire.audit import Record

__all__ = ["GRACE_MS", "Node", "NodeStartError"]

log = logging.getLogger("relaymesh.node")

GRACE_MS: Final = 5_000 if sys.platform == "win32" else 15_000
EXIT_GAVE_UP: Final = 70
_UNUSABLE_MAX: Final = 20
"""Entries of the agent files that were not taken, logged one by one; the audit log has more of them."""
_START_S: Final = 30.0
# After a drain: the last commit, the heartbeat that says LEFT, and the end of each actor.
_CLOSE_S: Final = 5.0
# At an end at once: what worker processes need to be killed, some 10 ms each, and a disk to come back.
_KILL_S: Final = 1.0


class NodeStartError(ActorError):
    """The node did not come up in time."""

    code = "node_start"

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self.node_id = node_id

    def __str__(self) -> str:
        return f"the node {self.node_id} did not come up within {_START_S:g} s: the log above says which part failed"


class Node:
    """A running node, once it is started. Made by ``actors.system.build``; thread-safe."""

    tree: Tree
    mesh: MeshPart | None = None

    def __init__(
        self,
        options: NodeOptions,
        root: Path,
        namespace: str,
        loaded: Loaded,
        registry: Registry,
        presence: Presence,
        addresses: dict[str, Address],
    ) -> None:
        self.node_id = presence.node_id
        self.root = root
        self.claimed: tuple[str, str, int] | None = None
        self.paused_reason = ""
        self._stopping = self._lost = False
        self.options = options
        self.timers = TimerService()
        settings, now_ns = loaded.settings, self.timers.now_ns()
        self.leases = lease_timeouts(root, settings, reload_ms=options.settings_reload_ms, now_ns=now_ns)
        owner_ms, judge_ms = self.leases.owner_ms(now_ns), self.leases.judge_ms(now_ns)
        bounds = SettingsChanged(owner_ms, judge_ms, settings.retry_dispatch_limit)
        self.in_force = InForce(settings, registry, bounds)
        self.facts = facts_of(
            options, root, namespace, self.node_id, settings, registry, policy_of=self.in_force.policy_of
        )
        self.trail = AuditTrail(root, namespace, masked_fields=settings.audit_masked_fields)
        self.addresses = addresses
        self.desk = AuditDesk(self.addresses["audit"])
        self._presence = presence
        self._ids = Ids(_now_ms, random.Random(random.SystemRandom().getrandbits(128)))
        self._generation = self._renewals = 0
        self._measures = Measures()
        self._tracing = _tracing(options, self.node_id)
        self._ended = threading.Event()
        self._drained = threading.Event()
        self._ending = threading.Lock()
        self._exit_status = 0
        self._on_committed: Callable[[Committed], None] = lambda _: None

    def start(self, tree: Tree, mesh: MeshPart | None) -> None:
        """Start the tree of its actors. mesh: the part of it that is in a mesh.

        Raises:
            NodeStartError: it did not come up in time.
        """
        self.tree, self.mesh = tree, mesh
        registry = self.in_force.registry
        self.trail.record_many(load_records(registry))
        for entry in registry.unusable[:_UNUSABLE_MAX]:
            log.warning("%s was not taken: %s", entry.source, entry.reason)
        QUICK_SWITCHES.begin(self)
        try:
            started = tree.start(_START_S)
        except BaseException:
            QUICK_SWITCHES.end(self)
            raise
        if not started:
            self._finish(exit_status=1, orderly=False)
            raise NodeStartError(self.node_id)

    # What relaymesh.node.RunningNode promises.

    def drain(self, grace_ms: int | None = None) -> None:
        """Take nothing new; end when what runs has ended, or after the grace time. Returns at once."""
        if grace_ms is None:
            grace_ms = self.options.grace_ms if self.options.grace_ms is not None else GRACE_MS
        self.addresses["queue"].tell(DrainQueue(max(0, grace_ms)))
        if not self.options.one_step:
            self._stopping = True
            self.addresses["observer"].tell(ObserveTick())  # so that who looks sees it at once
        threading.Thread(target=self._end_after_drain, args=(grace_ms,), name="drain", daemon=True).start()

    def kill(self, exit_status: int = 1) -> None:
        """End now; what ran is taken back by the next start, and counts as no attempt."""
        self._finish(exit_status=exit_status, orderly=False)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the node has ended; return its exit status, or None when the time ran out first."""
        return self._exit_status if self._ended.wait(timeout_s) else None

    def stop(self, grace_ms: int | None = None) -> int:
        """Drain and wait."""
        self.drain(grace_ms)
        status = self.wait()
        assert status is not None
        return status

    def submit(self, message: SubmitTasks, timeout_s: float = 60.0) -> StoreAnswer:
        """Store tasks through this node's group commit."""
        return self.addresses["store"].ask(message, timeout_s, StoreAnswer)

    def on_committed(self, call: Callable[[Committed], None]) -> None:
        """Have ``call`` called in the queue's thread with each batch of results that is on disk."""
        self._on_committed = call

    # What its actors ask of it: StoreNeeds, MaintenanceNeeds, ObserverNeeds, SettingsNeeds and the others.

    def now_ms(self) -> int:
        """Wall time."""
        return _now_ms()

    def reading(self) -> Reading:
        """Both clocks."""
        return Reading(_now_ms(), time.monotonic_ns(), boot_id())

    def lease_token(self) -> str:
        """Return a new token; called by the StoreActor only."""
        return self._ids.lease()

    def generation(self, number: int) -> None:
        """The store has given us this generation."""
        self._generation = number
        if self.mesh is not None:
            self.mesh.generation(number)

    def current_generation(self) -> int:
        """Return the generation, 0 before the first."""
        return self._generation

    def committed(
        self, spent_ns: int, writes: int, finished: Sequence[FinishedStep], claimed: Sequence[ClaimedRow]
    ) -> None:
        """The store has committed these results and claims among ``writes``; called by the StoreActor only."""
        self._measures.committed(spent_ns, writes, finished)
        if self._tracing is not None:
            ended_ns = time.time_ns()
            # The claim of a step comes before its result, also when one commit holds a claim and a former result.
            self._tracing.committed(finished, began_ns=ended_ns - spent_ns, ended_ns=ended_ns)
            self._tracing.claimed(claimed, began_ns=ended_ns - spent_ns, ended_ns=ended_ns)

    def unrecorded(self, since_ms: int, before_ms: int) -> Sequence[Record]:
        """Return records of tasks that nobody has recorded; called by the AuditActor, on a connection of its own."""
        from relaymesh.store.database import Database
        from relaymesh.store.unrecorded import unrecorded_submits

        with (
            contextlib.closing(
                Database.open(self.root, namespace=self.facts.namespace, now_ms=self.now_ms(), create=False)
            ) as store,
            store.reading(),
        ):
            return unrecorded_submits(store.conn, self.trail, since_ms=since_ms, before_ms=before_ms)

    def refused(self) -> None:
        """The database refused a transaction."""
        self._measures.refused()

    def renewed(self, leases: int) -> None:
        """The store has renewed so many leases; called by the StoreActor only."""
        self._renewals += leases

    def renewals(self) -> int:
        """Return how many leases were renewed since the node was built."""
        return self._renewals

    def member_rules(self) -> MemberRules:
        """Return what the settings say about members."""
        return self.in_force.member_rules

    def paused(self, reason: str) -> None:
        """The worker takes nothing from now on, and why; "": it does again."""
        self.paused_reason = reason

    def report(self) -> NodeReport:
        """Return what this node has counted since its start."""
        return self._measures.report(
            self.tree.metrics(),
            slot_counts(self.options),
            node_id=self.node_id,
            host=self.facts.host,
            pid=self.facts.pid,
            now_ms=_now_ms(),
            mesh=self.mesh.board.report if self.mesh is not None else None,
            paused=self.paused_reason,
            stopping=self._stopping,
        )

    def targets(self) -> Levels:
        """Return what the service levels of the root should not exceed."""
        return targets_of(self.in_force.settings)

    def min_free_disk_bytes(self) -> int:
        """Return the setting."""
        return self.in_force.settings.min_free_disk_bytes

    def maintained(self, done: MaintenanceOutcome) -> None:
        """A round of maintenance came to this."""
        if self.options.listener is not None:
            self.options.listener.maintained(done)

    def took(self, news: News) -> None:
        """Settings or retry policies were changed: whoever starts from now on, and every retry, goes by them."""
        self.in_force.took(news)
        if self.options.listener is not None:
            self.options.listener.reloaded(news.outcome)

    def lease_bounds(self, owner_ms: int, judge_ms: int) -> SettingsChanged:
        """Return, and remember for actors that start later, what leases go by now."""
        return self.in_force.lease_bounds(owner_ms, judge_ms)

    def lost_generation(self) -> None:
        """Another process runs under our id with a later generation: end, it has fenced us."""
        self._stop_with("another process has taken over the node id %s: this one stops", self.node_id)

    def lost_root(self) -> None:
        """The root was removed, moved or replaced under us: end, as nobody would see what we do."""
        self._stop_with("the data root %s was removed, moved or replaced while the node ran: it stops", self.root)

    def _stop_with(self, reason: str, *names: object) -> None:
        if not self._lost:
            self._lost = True
            log.error(reason, *names)
            threading.Thread(target=self._finish, kwargs={"exit_status": 1, "orderly": False}, daemon=True).start()

    # What the tree tells it, and its end.

    def on_results(self, message: Committed) -> None:
        """Results are on disk; called by the QueueActor, as the next two."""
        try:
            if self.options.listener is not None:
                self.options.listener.committed(message.leases)
            self._on_committed(message)
        except Exception:  # code of the program around the node: its faults are not the queue's
            log.exception("the program's callback for committed steps failed")

    def on_claimed(self, lease: LeaseRef) -> None:
        """A step was claimed."""
        if self.claimed is None:
            self.claimed = (lease.task_id, lease.step_id, lease.lease_epoch)

    def on_drained(self, drained: QueueDrained) -> None:
        """Nothing runs any more, and nothing is taken."""
        self._drained.set()
        if self.options.one_step:
            threading.Thread(target=self._end_after_drain, args=(0,), name="drain", daemon=True).start()

    def _end_after_drain(self, grace_ms: int) -> None:
        self._drained.wait(grace_ms / 1000 + _CLOSE_S)
        with contextlib.suppress(ActorError):  # the node ends either way; peers then learn of it from its lock
            facts = self.facts
            self.addresses["store"].tell(WriteNode(facts.node_id, self._generation, "LEFT", facts.agents))
        if self.mesh is not None:
            self.mesh.leave()
        self._finish(exit_status=0, orderly=True)

    def gave_up(self, reason: str) -> None:
        """The actors crashed too often: end."""
        log.critical("the node %s stops, because its actors crashed too often: %s", self.node_id, reason)
        threading.Thread(target=self._finish, kwargs={"exit_status": EXIT_GAVE_UP, "orderly": False}).start()

    def _finish(self, *, exit_status: int, orderly: bool) -> None:
        with self._ending:
            if self._ended.is_set():
                return
            self._exit_status = exit_status
            abandoned = self.tree.stop_all(_CLOSE_S if orderly else _KILL_S)
            if abandoned:
                log.error("these actors did not end in time: %s", ", ".join(abandoned))
            self.timers.stop()
            if self._tracing is not None:
                self._tracing.stop()
            self._presence.release()
            QUICK_SWITCHES.end(self)
            self._ended.set()


def _tracing(options: NodeOptions, node_id: str) -> Tracing | None:
    if not options.otlp_endpoint:
        return None
    from relaymesh.otel import start_tracing

    return start_tracing(options.otlp_endpoint, node_id=node_id)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
