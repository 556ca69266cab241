"""The one door to a live node: what starts one, and what a started one can do.

A node is made of actors, which this package does not know. The builder is found by the entry point group
``relaymesh.node`` (setup.cfg: ``default = actors.system:build``); tests may pass their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from relaymesh.errors import RelayMeshError

if TYPE_CHECKING:
    from relaymesh.node_view import BenchmarkRunOutcome, MaintenanceOutcome, WorkerOutcome
    from relaymesh.rule_view import SettingsReloadOutcome
    from relaymesh.view import Explanation
    from relaymesh.wire.store import StoreAnswer, SubmitTasks

__all__ = [
    "Builder",
    "GossipOptions",
    "Listener",
    "NodeMissingError",
    "NodeOptions",
    "RunningNode",
    "benchmark",
    "run_once",
    "start",
]


class NodeMissingError(RelayMeshError):
    """No builder is registered: the package was copied, not installed."""

    code = "node_missing"

    def __str__(self) -> str:
        return "no node builder is registered: install the package with `pip install -e .` and try again"


class Listener(Protocol):
    """Who is told what a node does. Called in the threads of its actors: each must return at once, and never wait."""

    def committed(self, leases: Sequence[tuple[int, int]]) -> None:
        """These attempts, ``(row_id, lease_epoch)``, are off the node's hands; what became of them is on disk."""
        ...

    def maintained(self, done: MaintenanceOutcome) -> None:
        """A round of maintenance came to this."""
        ...

    def reloaded(self, outcome: SettingsReloadOutcome) -> None:
        """The settings or the retry policies were read again; ``outcome.changed`` says whether settings differ."""
        ...


@dataclass(frozen=True, slots=True)
class GossipOptions:
    """How a node finds others and is found (docs/mesh.md).

    bind: address to listen at; one that other machines reach needs ``gossipSharedSecret``. port: the first of 32 that
    are tried, 0 for any free one. advertise: HOST:PORT or HOST where others reach it, empty for where it is bound.
    seeds: HOST:PORT of nodes to look for first. seeds_file: a file of them, read again when it changes. zeroconf: ask
    the local network too, and be found there, once other machines reach this node.
    """

    bind: str = "127.0.0.1"
    port: int = 17_888
    advertise: str = ""
    seeds: tuple[str, ...] = ()
    seeds_file: Path | None = None
    zeroconf: bool = True


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How to run a node.

    root: the data root (not yet scoped by the namespace). node_id: None takes the first free of node-local,
    node-local-2, …
    concurrency: worker processes; None is the number of cores, at least 4. threads: slots for agents in threads.
    agents: modules or files with agents. grace_ms: how long running steps may take to end at a stop.
    one_step: claim a single step, run it, and end.
    worker_id: who the audit log says ran the steps, up to 256 characters.
    maintenance: take back steps of dead and silent owners, and expire tasks; heartbeats and due retries go on without.
    listener: who is told what the node does.
    settings_reload_ms: time between two looks at the settings; less than 1000 counts as 1000.
    otlp_endpoint: where traces are sent (relaymesh/otel.py); None sends none.
    gossip: how it finds other nodes; None keeps it out of every mesh.
    """

    root: Path
    namespace: str = "default"
    node_id: str | None = None
    worker_id: str = "worker-local"
    concurrency: int | None = None
    threads: int | None = None
    agents: tuple[str, ...] = ()
    grace_ms: int | None = None
    one_step: bool = False
    maintenance: bool = True
    settings_reload_ms: int = 10_000
    listener: Listener | None = field(default=None, compare=False)
    otlp_endpoint: str | None = None
    gossip: GossipOptions | None = None

    def __post_init__(self) -> None:
        """Raises InputError."""
        from relaymesh.argument import check_name

        check_name("worker_id", self.worker_id)


class RunningNode(Protocol):
    """A node that was started."""

    @property
    def node_id(self) -> str:
        """The id that it runs under."""
        ...

    @property
    def claimed(self) -> tuple[str, str, int] | None:
        """Task id, step id and lease epoch of the first step that it claimed, None when there was none."""
        ...

    @property
    def paused_reason(self) -> str:
        """Why it takes nothing although it runs, "" when it does (relaymesh.core.mesh.local)."""
        ...

    def submit(self, message: SubmitTasks) -> StoreAnswer:
        """Store tasks through the node's group commit; returns when they are on disk."""
        ...

    def drain(self, grace_ms: int | None = None) -> None:
        """Take nothing new; end when what runs has ended, or after the grace time. Returns at once."""
        ...

    def kill(self, exit_status: int = 1) -> None:
        """End now: stop worker processes, commit no more than is in hand. What ran is taken back by the next start.

        exit_status: what ``wait`` returns then; one that has ended, or ends in order already, keeps its own.
        """
        ...

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the node has ended; return its exit status, or None when the time ran out first."""
        ...

    def stop(self, grace_ms: int | None = None) -> int:
        """Drain and wait; return the exit status."""
        ...


Builder = Callable[[NodeOptions], RunningNode]


def start(options: NodeOptions, builder: Builder | None = None) -> RunningNode:
    """Start a node; it claims as soon as this returns.

    Raises:
        RelayMeshError: the root or the options cannot be used.
    """
    return (builder or _registered())(options)


def run_once(options: NodeOptions, builder: Builder | None = None) -> WorkerOutcome:
    """Take one step from the queue, run it, and return what became of it.

    Raises:
        RelayMeshError: the root or the options cannot be used.
    """
    from relaymesh.node_view import WorkerOutcome
    from relaymesh.once import outcome_of, poll

    seen = poll(options)
    if isinstance(seen, WorkerOutcome):
        return seen
    node = start(replace(options, one_step=True, concurrency=1, threads=1), builder)
    try:
        node.wait()
    finally:
        node.stop(0)
    return outcome_of(options, node.claimed, seen, node.paused_reason)


def benchmark(
    options: NodeOptions,
    *,
    tasks: int = 1000,
    agent: str = "echo",
    priority: str = "normal",
    input_size: int = 64,
    max_seconds: int = 300,
    poll_batch: int = 64,
    on_held: Callable[[Explanation], None] | None = None,
    builder: Builder | None = None,
) -> BenchmarkRunOutcome:
    """Submit tasks one after another, run a node until they have ended, and return the figures.

    poll_batch: taken for the sake of scripts; a node does not poll. on_held: told once for each reason for which
        nothing moves, such as a limit of 0; the run goes on to its time limit, since the reason may pass.

    Raises:
        RelayMeshError: the root, the options or the agent cannot be used.
    """
    from relaymesh.benchmark import run_benchmark

    return run_benchmark(
        options,
        lambda: start(options, builder),
        tasks=tasks,
        agent=agent,
        priority=priority,
        input_size=input_size,
        max_seconds=max_seconds,
        on_held=on_held,
    )


def _registered() -> Builder:
    from importlib.metadata import entry_points

    for entry in entry_points(group="relaymesh.node", name="default"):
        builder: Builder = entry.load()
        return builder
    raise NodeMissingError
