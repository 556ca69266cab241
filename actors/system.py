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
nothing that was acknowledged hangs on what an actor had in memory. What a node is besides its tree: ``actors.node``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.address import Address
from actors.audit import AuditActor
from actors.base import Actor
from actors.control import ControlActor
from actors.inbox import InboxActor
from actors.inline import InlineWorkerActor
from actors.lease import LeaseActor
from actors.mailbox import Overflow
from actors.maintenance import MaintenanceActor
from actors.node import Node
from actors.node_facts import slot_counts
from actors.observer import ObserverActor
from actors.queue import QueueActor, WorkerSlot, tell_after_ns
from actors.reseal import ResealActor
from actors.retention import RetentionActor
from actors.setting import SettingsActor
from actors.store import StoreActor
from actors.supervisor import Child, Supervisor
from actors.thread import ThreadWorkerActor
from actors.tree import Tree
from actors.wake import WakeActor
from actors.worker import WorkerActor, process_factory
from relaymesh.agents.registry import load_registry
from relaymesh.agents.spec import USER_INLINE_POOL, AgentSpec, Isolation
from relaymesh.core.supervision import Intensity, Strategy
from relaymesh.node import NodeOptions
from relaymesh.reload import SettingsWatch
from relaymesh.settings import load
from relaymesh.store.presence import take_presence
from relaymesh.store.root import create_layout, normalize_namespace, scoped_root
from relaymesh.store.store import Store
from relaymesh.wire.store import ObserveTick, SubmitTasks

if TYPE_CHECKING:
    from actors.mesh import MeshPart

__all__ = ["INTENSITY", "Node", "build"]

INTENSITY = Intensity(restarts=20, within_ns=120_000_000_000)
"""More restarts than this end the node. The window is long against the backoff: an actor that crashes at every start
waits up to 5 s each time, and would never come to 20 in a few seconds."""


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
    Store.open(root, namespace=namespace, now_ms=time.time_ns() // 1_000_000).close()
    presence = take_presence(root / "run", options.node_id)
    try:
        watch = SettingsWatch(root, namespace, loaded, registry.retries, node_id=presence.node_id)
        node = Node(options, root, namespace, loaded, registry, presence, _addresses())
        mesh = _mesh(node)
        node.start(_tree(node, watch, mesh), mesh)
    except BaseException:
        presence.release()
        raise
    return node


def _addresses() -> dict[str, Address]:
    return {
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


def _tree(node: Node, watch: SettingsWatch, mesh: MeshPart | None) -> Tree:
    at, timers, facts, options = node.addresses, node.timers, node.facts, node.options
    slots: dict[str, WorkerSlot] = {}
    workers = _workers(node, slots)
    holds = node.in_force
    audit = Child(at["audit"], lambda: AuditActor(node.trail, node.desk, timers, node.unrecorded))
    children = [
        # First, so that it is stopped last, and of its own, so that its crash restarts nobody.
        Child(at["records"], lambda: Supervisor([audit], timers, strategy=Strategy.ONE_FOR_ONE, intensity=INTENSITY)),
        Child(
            at["store"],
            lambda: StoreActor(facts, node, timers, at["queue"], at["lease"], node.desk),
        ),
        Child(
            at["queue"],
            lambda: QueueActor(
                at["store"],
                at["lease"],
                slots,
                timers,
                node.on_drained,
                node.on_results,
                tell_after_ns=tell_after_ns(holds.leases.owner_lease_ms),
                on_claimed=node.on_claimed,
                one_step=options.one_step,
            ),
        ),
        Child(at["lease"], lambda: LeaseActor(holds.leases.owner_lease_ms, at["store"], at["queue"], timers)),
        Child(
            at["workers"],
            lambda: Supervisor(workers, timers, strategy=Strategy.ONE_FOR_ONE, intensity=INTENSITY),
            stop_within_s=10.0,
        ),
        Child(
            at["maintenance"],
            lambda: MaintenanceActor(
                facts,
                node,
                timers,
                at["store"],
                lease_timeout_ms=holds.leases.judge_lease_ms,
                reclaim_max=holds.leases.reclaim_max,
                reclaims=options.maintenance,
            ),
        ),
        *_inbox(node),
        Child(at["wake"], lambda: WakeActor(node.root / "run", node.node_id, at["store"])),
        Child(
            at["settings"],
            lambda: SettingsActor(
                watch,
                node.leases,
                node,
                timers,
                (at["queue"], at["lease"], at["maintenance"]),
                every_ms=options.settings_reload_ms,
            ),
        ),
        Child(at["control"], lambda: ControlActor(node.root / "run", node.node_id, {SubmitTasks: at["store"]})),
        Child(at["observer"], lambda: ObserverActor(facts, node, timers, at["store"])),
        Child(at["retention"], lambda: RetentionActor(facts, node, timers, node.in_force.settings)),
        Child(at["reseal"], lambda: ResealActor(facts, node, timers)),
        *([mesh.child()] if mesh is not None else []),
    ]
    return Tree(
        lambda: Supervisor(children, timers, strategy=Strategy.REST_FOR_ONE, intensity=INTENSITY),
        on_give_up=node.gave_up,
    )


def _mesh(node: Node) -> MeshPart | None:
    """Return the part that is in a mesh; without gossip none of it is loaded."""
    if node.options.gossip is None:
        return None
    from actors.mesh import MeshPart

    return MeshPart(
        node.options.gossip,
        node.facts,
        node.timers,
        node.addresses["store"],
        node.desk,
        settings=lambda: node.in_force.settings,
        current_generation=node.current_generation,
        now_ms=node.now_ms,
        intensity=INTENSITY,
        on_news=lambda: node.addresses["observer"].tell(ObserveTick()),
    )


def _inbox(node: Node) -> list[Child]:
    """Return the child that takes in files; a node for a single step leaves that to others."""
    if node.options.one_step:
        return []
    store = node.addresses["store"]
    files = node.in_force.settings.bus_mode == "files"

    def make() -> InboxActor:
        return InboxActor(node.facts, node.timers, store, node.now_ms, node.trail, keeps_messages=files)

    return [Child(node.addresses["inbox"], make)]


def _workers(node: Node, slots: dict[str, WorkerSlot]) -> list[Child]:
    """Return the worker actors; ``slots`` gets what the queue has to know of each."""
    at, timers = node.addresses, node.timers
    by_pool: dict[Isolation, dict[str, AgentSpec]] = {isolation: {} for isolation in Isolation}
    for agent_id, spec in node.in_force.registry.specs.items():
        by_pool[spec.isolation][agent_id] = spec
    inline, thread, process = (by_pool[i] for i in (Isolation.INLINE, Isolation.THREAD, Isolation.PROCESS))
    counts = slot_counts(node.options)
    threads = counts["thread"]
    make_process = process_factory(node.root, node.options.agents)

    def worker(name: str, pool: str, capacity: int, factory: Callable[[], Actor]) -> Child:
        address = at[name] = Address(name, capacity=4096, overflow=Overflow.BLOCK, block_s=30.0)
        slots[name] = WorkerSlot(address, pool, capacity)
        return Child(address, factory, stop_within_s=8.0)

    def inline_actor() -> InlineWorkerActor:
        return InlineWorkerActor(inline, at["store"], at["queue"])

    def thread_actor() -> ThreadWorkerActor:
        return ThreadWorkerActor(thread, threads, at["store"], at["queue"], at["lease"])

    def process_actor() -> WorkerActor:
        return WorkerActor(process, make_process, timers, at["store"], at["queue"], at["lease"])

    return [
        *(worker(pool, pool, counts[pool], inline_actor) for pool in ("inline", USER_INLINE_POOL)),
        worker("thread", "thread", threads, thread_actor),
        *(worker(f"worker-{number}", "process", 1, process_actor) for number in range(1, counts["process"] + 1)),
    ]
