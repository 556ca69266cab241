"""One node, put together: addresses first, then the supervision tree in start order.

    root (rest for one)
    ├── records (one for one)
    │   └── audit     writes the audit log, behind the others' backs
    ├── store         the only writer
    ├── queue         the books; its start fences what ran before
    ├── lease         renewals
    ├── workers (one for one)
    │   ├── inline    built-ins
    │   ├── thread    trusted agents in threads, HTTP
    │   └── worker-N  one worker process each
    ├── maintenance   dead owners, expiry, heartbeat
    ├── inbox         files that programs hand in
    ├── wake          hints from other processes
    ├── settings      what the operator changed
    ├── control       messages from other processes
    ├── observer      the node's report, and the alerts of the root
    ├── retention     removes what is old
    ├── reseal        encrypts anew after a rotation of the keys
    └── mesh          finds other nodes, and notices when they are gone; not without gossip (actors/mesh.py)

When a child crashes, it and all behind it are started anew. A new queue takes over with a new generation, which fences
every step that the node ran; when only what is behind the queue was restarted, it gives back what the workers held. So
nothing that was acknowledged hangs on what an actor had in memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actors.address import Address
from actors.audit import AuditActor, AuditDesk
from actors.base import Actor
from actors.control import ControlActor
from actors.inbox import InboxActor
from actors.inline import INLINE_SLOTS, InlineWorkerActor
from actors.lease import LeaseActor
from actors.mailbox import Overflow
from actors.maintenance import MaintenanceActor
from actors.measure import Measures
from actors.observer import ObserverActor
from actors.queue import QueueActor, WorkerSlot, tell_after_ns
from actors.reseal import ResealActor
from actors.retention import RetentionActor
from actors.setting import SettingsActor
from actors.store import StoreActor
from actors.store_needs import NodeFacts
from actors.supervisor import Child, Supervisor
from actors.thread import ThreadWorkerActor
from actors.timer import TimerService
from actors.tree import Tree
from actors.wake import WakeActor
from actors.worker import WorkerActor, process_factory
from relaymesh.agents.audit import load_records
from relaymesh.agents.registry import Registry, load_registry
from relaymesh.agents.spec import USER_INLINE_POOL, AgentSpec, Isolation
from relaymesh.audit.trail import AuditTrail
from relaymesh.core.clock_guard import Reading
from relaymesh.core.ident import Ids
from relaymesh.core.lease_change import LeaseTimeouts
from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.slo import Levels
from relaymesh.core.supervision import Intensity, Strategy
from relaymesh.errors import ActorError
from relaymesh.node import NodeOptions
from relaymesh.node_view import MaintenanceOutcome
from relaymesh.observation import targets_of
from relaymesh.reload import News, SettingsWatch
from relaymesh.settings import Loaded, load
from relaymesh.settings.record import read_record
from relaymesh.store.claim import ClaimedRow
from relaymesh.store.clock import boot_id
from relaymesh.store.connection import Durability
from relaymesh.store.node_row import Capabilities
from relaymesh.store.presence import Presence, host_name, take_presence
from relaymesh.store.root import create_layout, normalize_namespace, scoped_root
from relaymesh.store.store import Store
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
    from relaymesh.otel import Tracing
    from relaymesh.wire.audit import Record

__all__ = ["GRACE_MS", "INTENSITY", "Node", "build"]

log = logging.getLogger("relaymesh.node")

_UNUSABLE_MAX = 20
"""Entries of the agent files that were not taken, logged one by one; the audit log has more of them."""

GRACE_MS = 5_000 if sys.platform == "win32" else 15_000
THREAD_SLOTS = 32
EXIT_GAVE_UP = 70
_START_S = 30.0
# After a drain: the last commit, the heartbeat that says LEFT, and the end of each actor.
_CLOSE_S = 5.0
# At an end at once: what worker processes need to be killed, some 10 ms each, and a disk to come back.
_KILL_S = 1.0
_SWITCH_S = 0.0005


def build(options: NodeOptions) -> Node:
    """Start a node; it claims as soon as this returns.

    Raises:
        RelayMeshError: the root, the settings, the agents or the node id cannot be used.
    """
    namespace = normalize_namespace(options.namespace)
    root = scoped_root(options.root, namespace)
    create_layout(root)
    loaded = load(root)
    registry = load_registry(root, options.agents)
    # Opened and closed once here, so that what is wrong with the root is an error of this call.
    Store.open(root, namespace=namespace, now_ms=_now_ms()).close()
    presence = take_presence(root / "run", options.node_id)
    try:
        return Node(options, root, namespace, loaded, registry, presence)
    except BaseException:
        presence.release()
        raise


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Node:
    """A running node. Made by ``build``; thread-safe."""

    def __init__(
        self,
        options: NodeOptions,
        root: Path,
        namespace: str,
        loaded: Loaded,
        registry: Registry,
        presence: Presence,
    ) -> None:
        self.node_id = presence.node_id
        self.root = root
        self.claimed: tuple[str, str, int] | None = None
        self._presence = presence
        self._options = options
        # What holds now. Replaced as a whole by the SettingsActor, read by whoever starts and by the store.
        self._settings = loaded.settings
        self._member_rules = MemberRules.of(loaded.settings)
        self.paused_reason = ""
        self._registry = registry
        self._timers = TimerService()
        self._watch = SettingsWatch(root, namespace, loaded, registry.retries, node_id=presence.node_id)
        self._leases = self._lease_timeouts()
        now_ns = self._timers.now_ns()
        self._holds = self.lease_bounds(self._leases.owner_ms(now_ns), self._leases.judge_ms(now_ns))
        self._ids = Ids(_now_ms, random.Random(random.SystemRandom().getrandbits(128)))
        self._generation = self._renewals = 0
        self._measures = Measures()
        self._tracing = _tracing(options, self.node_id)
        self._ended = threading.Event()
        self._drained = threading.Event()
        self._ending = threading.Lock()
        self._exit_status = 0
        self._on_committed: Callable[[Committed], None] = lambda _: None
        self.facts = self._make_facts(namespace)
        self.addresses = {
            "records": Address("records", capacity=1024),
            "audit": Address("audit", capacity=65_536, overflow=Overflow.DROP_NEW),
            "store": Address("store", capacity=65_536, overflow=Overflow.BLOCK, block_s=30.0),
            "queue": Address("queue", capacity=65_536, overflow=Overflow.BLOCK, block_s=30.0),
            "lease": Address("lease", capacity=65_536, overflow=Overflow.BLOCK, block_s=30.0),
            "maintenance": Address("maintenance", capacity=256, overflow=Overflow.DROP_NEW),
            "inbox": Address("inbox", capacity=64, overflow=Overflow.DROP_NEW),
            "wake": Address("wake", capacity=16, overflow=Overflow.DROP_NEW),
            "settings": Address("settings", capacity=16, overflow=Overflow.DROP_NEW),
            "control": Address("control", capacity=16, overflow=Overflow.DROP_NEW),
            "observer": Address("observer", capacity=16, overflow=Overflow.DROP_NEW),
            "retention": Address("retention", capacity=16, overflow=Overflow.DROP_NEW),
            "reseal": Address("reseal", capacity=16, overflow=Overflow.DROP_NEW),
            "workers": Address("workers", capacity=1024),
        }
        self._trail = AuditTrail(root, namespace, masked_fields=self._settings.audit_masked_fields)
        self._desk = AuditDesk(self.addresses["audit"])
        self._slots: dict[str, WorkerSlot] = {}
        self.mesh = self._mesh()
        self._trail.record_many(load_records(registry))
        for entry in registry.unusable[:_UNUSABLE_MAX]:
            log.warning("%s was not taken: %s", entry.source, entry.reason)
        self._start()

    # What relaymesh.node.RunningNode promises.

    def drain(self, grace_ms: int | None = None) -> None:
        """Take nothing new; end when what runs has ended, or after the grace time. Returns at once."""
        if grace_ms is None:
            grace_ms = self._options.grace_ms if self._options.grace_ms is not None else GRACE_MS
        self.addresses["queue"].tell(DrainQueue(max(0, grace_ms)))
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

    # StoreNeeds, MaintenanceNeeds and ObserverNeeds.

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

    def _unrecorded(self, since_ms: int, before_ms: int) -> Sequence[Record]:
        """Return records of tasks that nobody has recorded; called by the AuditActor, on a connection of its own."""
        from relaymesh.store.database import Database
        from relaymesh.store.unrecorded import unrecorded_submits

        with (
            contextlib.closing(
                Database.open(self.root, namespace=self.facts.namespace, now_ms=self.now_ms(), create=False)
            ) as store,
            store.reading(),
        ):
            return unrecorded_submits(store.conn, self._trail, since_ms=since_ms, before_ms=before_ms)

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
        return self._member_rules

    def paused(self, reason: str) -> None:
        """The worker takes nothing from now on, and why; "": it does again."""
        self.paused_reason = reason

    def report(self) -> NodeReport:
        """Return what this node has counted since its start."""
        return self._measures.report(
            self.tree.metrics(),
            self._slot_counts,
            node_id=self.node_id,
            host=self.facts.host,
            pid=self.facts.pid,
            now_ms=_now_ms(),
            mesh=self.mesh.board.report if self.mesh is not None else None,
            paused=self.paused_reason,
        )

    def targets(self) -> Levels:
        """Return what the service levels of the root should not exceed."""
        return targets_of(self._settings)

    def min_free_disk_bytes(self) -> int:
        """Return the setting."""
        return self._settings.min_free_disk_bytes

    def maintained(self, done: MaintenanceOutcome) -> None:
        """A round of maintenance came to this."""
        if self._options.listener is not None:
            self._options.listener.maintained(done)

    def took(self, news: News) -> None:
        """Settings or retry policies were changed: whoever starts from now on, and every retry, goes by them."""
        self._settings = news.settings
        self._member_rules = MemberRules.of(news.settings)
        self._registry = self._registry.with_retries(news.retries)
        self._policies = self._registry.specs, news.settings.retry_policy
        if self._options.listener is not None:
            self._options.listener.reloaded(news.outcome)

    def lease_bounds(self, owner_ms: int, judge_ms: int) -> SettingsChanged:
        """Return, and remember for actors that start later, what leases go by now."""
        self._holds = SettingsChanged(owner_ms, judge_ms, self._settings.retry_dispatch_limit)
        return self._holds

    def lost_generation(self) -> None:
        """Another process runs under our id with a later generation: end, it has fenced us."""
        log.error("another process has taken over the node id %s: this one stops", self.node_id)
        threading.Thread(target=self._finish, kwargs={"exit_status": 1, "orderly": False}, daemon=True).start()

    # Putting it together.

    def _lease_timeouts(self) -> LeaseTimeouts:
        """The timeout that was recorded for the root may still be what other nodes go by."""
        recorded = read_record(self.root)
        ours_ms = self._settings.lease_timeout_ms
        theirs_ms = recorded.values["leaseTimeoutMs"] if recorded is not None else ours_ms
        assert isinstance(theirs_ms, int)
        leases = LeaseTimeouts(theirs_ms, reload_ms=self._options.settings_reload_ms)
        leases.change(self._timers.now_ns(), ours_ms)
        return leases

    def _make_facts(self, namespace: str) -> NodeFacts:
        specs = self._registry.specs
        self._policies = specs, self._settings.retry_policy

        def policy_of(agent_id: str) -> RetryPolicy:
            agents, default = self._policies
            spec = agents.get(agent_id)
            return spec.retry if spec is not None and spec.retry is not None else default

        return NodeFacts(
            root=self.root,
            namespace=namespace,
            node_id=self.node_id,
            host=host_name(),
            pid=os.getpid(),
            agents=self._capabilities(),
            pools={agent_id: spec.pool for agent_id, spec in specs.items()},
            limits={
                agent_id: spec.max_concurrency for agent_id, spec in specs.items() if spec.max_concurrency is not None
            },
            policy_of=policy_of,
            durability=Durability(self._settings.durability),
            worker_id=self._options.worker_id,
            masked_fields=self._settings.audit_masked_fields,
        )

    def _capabilities(self) -> str:
        """What this node tells others about itself, as the JSON of ``relaymesh.store.node_row.Capabilities``."""
        specs = self._registry.specs
        return Capabilities(
            pools={agent_id: spec.pool for agent_id, spec in specs.items()},
            limits={
                agent_id: spec.max_concurrency for agent_id, spec in specs.items() if spec.max_concurrency is not None
            },
            slots=self._slot_counts,
            reclaims=self._options.maintenance,
        ).to_json()

    @property
    def _slot_counts(self) -> dict[str, int]:
        return {
            "inline": INLINE_SLOTS,
            USER_INLINE_POOL: 1,
            "thread": self._options.threads or THREAD_SLOTS,
            "process": self._concurrency,
        }

    def _start(self) -> None:
        _QUICK_SWITCHES.begin(self)
        try:
            started = self._start_actors()
        except BaseException:
            _QUICK_SWITCHES.end(self)
            raise
        if not started:
            self._finish(exit_status=1, orderly=False)
            raise NodeStartError(self.node_id)

    def _start_actors(self) -> bool:
        at, timers = self.addresses, self._timers
        workers = self._workers()
        audit = Child(at["audit"], lambda: AuditActor(self._trail, self._desk, timers, self._unrecorded))
        children = [
            # First, so that it is stopped last, and of its own, so that its crash restarts nobody.
            Child(
                at["records"], lambda: Supervisor([audit], timers, strategy=Strategy.ONE_FOR_ONE, intensity=INTENSITY)
            ),
            Child(
                at["store"],
                lambda: StoreActor(self.facts, self, timers, at["queue"], at["lease"], self._desk),
            ),
            Child(
                at["queue"],
                lambda: QueueActor(
                    at["store"],
                    at["lease"],
                    self._slots,
                    timers,
                    self._queue_drained,
                    self._committed,
                    tell_after_ns=tell_after_ns(self._holds.owner_lease_ms),
                    on_claimed=self._claimed,
                    one_step=self._options.one_step,
                ),
            ),
            Child(at["lease"], lambda: LeaseActor(self._holds.owner_lease_ms, at["store"], at["queue"], timers)),
            Child(
                at["workers"],
                lambda: Supervisor(workers, timers, strategy=Strategy.ONE_FOR_ONE, intensity=INTENSITY),
                stop_within_s=10.0,
            ),
            Child(
                at["maintenance"],
                lambda: MaintenanceActor(
                    self.facts,
                    self,
                    timers,
                    at["store"],
                    lease_timeout_ms=self._holds.judge_lease_ms,
                    reclaim_max=self._holds.reclaim_max,
                    reclaims=self._options.maintenance,
                ),
            ),
            *self._inbox(),
            Child(at["wake"], lambda: WakeActor(self.root / "run", self.node_id, at["store"])),
            Child(
                at["settings"],
                lambda: SettingsActor(
                    self._watch,
                    self._leases,
                    self,
                    timers,
                    (at["queue"], at["lease"], at["maintenance"]),
                    every_ms=self._options.settings_reload_ms,
                ),
            ),
            Child(at["control"], lambda: ControlActor(self.root / "run", self.node_id, {SubmitTasks: at["store"]})),
            Child(at["observer"], lambda: ObserverActor(self.facts, self, timers, at["store"])),
            Child(at["retention"], lambda: RetentionActor(self.facts, self, timers, self._settings)),
            Child(at["reseal"], lambda: ResealActor(self.facts, self, timers)),
            *([self.mesh.child()] if self.mesh is not None else []),
        ]
        self.tree = Tree(
            lambda: Supervisor(children, timers, strategy=Strategy.REST_FOR_ONE, intensity=INTENSITY),
            on_give_up=self._gave_up,
        )
        return self.tree.start(_START_S)

    def _mesh(self) -> MeshPart | None:
        """Return the part that is in a mesh; without gossip none of it is loaded."""
        if self._options.gossip is None:
            return None
        from actors.mesh import MeshPart

        return MeshPart(
            self._options.gossip,
            self.facts,
            self._timers,
            self.addresses["store"],
            self._desk,
            settings=lambda: self._settings,
            current_generation=self.current_generation,
            now_ms=self.now_ms,
            intensity=INTENSITY,
            on_news=lambda: self.addresses["observer"].tell(ObserveTick()),
        )

    def _inbox(self) -> list[Child]:
        """Return the child that takes in files; a node for a single step leaves that to others."""
        at = self.addresses
        if self._options.one_step:
            return []
        facts = self.facts
        files = self._settings.bus_mode == "files"

        def make() -> InboxActor:
            return InboxActor(facts, self._timers, at["store"], self.now_ms, self._trail, keeps_messages=files)

        return [Child(at["inbox"], make)]

    def _workers(self) -> list[Child]:
        at, timers = self.addresses, self._timers
        by_pool: dict[Isolation, dict[str, AgentSpec]] = {isolation: {} for isolation in Isolation}
        for agent_id, spec in self._registry.specs.items():
            by_pool[spec.isolation][agent_id] = spec
        inline, thread, process = (by_pool[i] for i in (Isolation.INLINE, Isolation.THREAD, Isolation.PROCESS))
        threads = self._options.threads or THREAD_SLOTS
        make_process = process_factory(self.root, self._options.agents)
        children = [
            self._worker("inline", "inline", INLINE_SLOTS, lambda: InlineWorkerActor(inline, at["store"], at["queue"])),
            self._worker(
                USER_INLINE_POOL,
                USER_INLINE_POOL,
                1,
                lambda: InlineWorkerActor(inline, at["store"], at["queue"]),
            ),
            self._worker(
                "thread",
                "thread",
                threads,
                lambda: ThreadWorkerActor(thread, threads, at["store"], at["queue"], at["lease"]),
            ),
        ]
        children += [
            self._worker(
                f"worker-{number}",
                "process",
                1,
                lambda: WorkerActor(process, make_process, timers, at["store"], at["queue"], at["lease"]),
            )
            for number in range(1, self._concurrency + 1)
        ]
        return children

    @property
    def _concurrency(self) -> int:
        return self._options.concurrency or max(4, os.cpu_count() or 1)

    def _worker(self, name: str, pool: str, capacity: int, factory: Callable[[], Actor]) -> Child:
        address = Address(name, capacity=4096, overflow=Overflow.BLOCK, block_s=30.0)
        self.addresses[name] = address
        self._slots[name] = WorkerSlot(address, pool, capacity)
        return Child(address, factory, stop_within_s=8.0)

    # Ending.

    def _committed(self, message: Committed) -> None:
        try:
            if self._options.listener is not None:
                self._options.listener.committed(message.leases)
            self._on_committed(message)
        except Exception:  # code of the program around the node: its faults are not the queue's
            log.exception("the program's callback for committed steps failed")

    def _claimed(self, lease: LeaseRef) -> None:
        if self.claimed is None:
            self.claimed = (lease.task_id, lease.step_id, lease.lease_epoch)

    def _queue_drained(self, drained: QueueDrained) -> None:
        self._drained.set()
        if self._options.one_step:
            threading.Thread(target=self._end_after_drain, args=(0,), name="drain", daemon=True).start()

    def _end_after_drain(self, grace_ms: int) -> None:
        self._drained.wait(grace_ms / 1000 + _CLOSE_S)
        with contextlib.suppress(ActorError):  # the node ends either way; peers then learn of it from its lock
            facts = self.facts
            self.addresses["store"].tell(WriteNode(facts.node_id, self._generation, "LEFT", facts.agents))
        if self.mesh is not None:
            self.mesh.leave()
        self._finish(exit_status=0, orderly=True)

    def _gave_up(self, reason: str) -> None:
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
            self._timers.stop()
            if self._tracing is not None:
                self._tracing.stop()
            self._presence.release()
            _QUICK_SWITCHES.end(self)
            self._ended.set()


def _tracing(options: NodeOptions, node_id: str) -> Tracing | None:
    if not options.otlp_endpoint:
        return None
    from relaymesh.otel import start_tracing

    return start_tracing(options.otlp_endpoint, node_id=node_id)


class _QuickSwitches:
    """The switch interval of the interpreter while a node runs; the program around it gets its own back at the end.

    Python gives a waiting thread the interpreter only after this long; the default of 5 ms is many commits. It holds
    for the whole process, so the nodes that run in it are remembered.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: set[Node] = set()
        self._former_s = self._ours_s = 0.0

    def begin(self, node: Node) -> None:
        with self._lock:
            if not self._nodes:
                self._former_s = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH_S)
                self._ours_s = sys.getswitchinterval()
            self._nodes.add(node)

    def end(self, node: Node) -> None:
        with self._lock:
            if node not in self._nodes:
                return
            self._nodes.remove(node)
            # What the program has chosen meanwhile is its own business.
            if not self._nodes and sys.getswitchinterval() == self._ours_s:
                sys.setswitchinterval(self._former_s)


_QUICK_SWITCHES = _QuickSwitches()


INTENSITY = Intensity(restarts=20, within_ns=120_000_000_000)
"""More restarts than this end the node. The window is long against the backoff: an actor that crashes at every start
waits up to 5 s each time, and would never come to 20 in a few seconds."""


class NodeStartError(ActorError):
    """The node did not come up in time."""

    code = "node_start"

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self.node_id = node_id

    def __str__(self) -> str:
        return f"the node {self.node_id} did not come up within {_START_S:g} s: the log above says which part failed"
