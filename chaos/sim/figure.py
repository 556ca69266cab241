"""The experiments behind the figures of docs/performance.md. Each is one run of one seed; all but CPU is deterministic.

Durations are in ms of simulated time. An experiment that does not come to its end in its limit returns None.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from chaos.sim.cluster import Cluster
from chaos.sim.kernel import Observer, seeded
from chaos.sim.machine import Machine
from chaos.sim.network import CHANCE, Link
from relaymesh.core.mesh.effect import Changed, Effect
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.tuning import MS, SECOND

__all__ = [
    "crash",
    "false_verdicts",
    "heal",
    "idle",
    "join",
    "percentile",
    "slow_nodes",
    "spread",
    "uncollected",
    "young",
]

_STEP_NS = 20 * MS
Number = TypeVar("Number", int, float)


def percentile(values: Sequence[Number], percent: int) -> Number:
    """Return the nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector of cycles away: a large mesh is millions of objects, none of which is garbage."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
            gc.collect()


def _settled(nodes: int, seed: int, loss_percent: int = 0) -> Cluster:
    """Return a mesh in which every pair has met before, as in one that has run for an hour."""
    cluster = Cluster(nodes, seed)
    cluster.kernel.network.set_base(Link(loss=loss_percent * CHANCE // 100))
    cluster.start_known()
    cluster.acquaint()
    # At a seeded phase of the probes.
    cluster.kernel.run(8 * SECOND + int(seeded(seed, "phase").random() * SECOND))
    return cluster


def crash(nodes: int, seed: int, loss_percent: int = 0) -> tuple[int, int] | None:
    """Kill one node; return when the first suspected it, and when every other held it DEAD."""
    cluster = _settled(nodes, seed, loss_percent)
    victim = cluster.machines[int(seeded(seed, "victim").random() * nodes)]
    first: list[int] = []
    dead: set[int] = set()

    def watch(now_ns: int, machine: Machine, effect: Effect) -> None:
        if isinstance(effect, Changed) and effect.member.node_id == victim.node_id:
            if effect.member.state is State.SUSPECT and not first:
                first.append(now_ns)
            if effect.member.state is State.DEAD:
                dead.add(machine.index)
                if len(dead) == nodes - 1:
                    first.append(now_ns)
            else:
                dead.discard(machine.index)

    began = cluster.kernel.now_ns
    cluster.watchers.append(watch)
    victim.crash()
    if not cluster.run_until(lambda: len(dead) == nodes - 1, step_ns=_STEP_NS, limit_ns=120 * SECOND):
        return None
    return (first[0] - began) // MS, (first[-1] - began) // MS


def spread(nodes: int, seed: int) -> int | None:
    """Let one node renew its record; return when all know."""
    cluster = _settled(nodes, seed)
    origin = cluster.machines[int(seeded(seed, "origin").random() * nodes)]
    me = origin.membership.me
    news = Member(me.node_id, me.address, me.generation, me.version + 1, State.ALIVE)
    began = cluster.kernel.now_ns

    def known() -> bool:
        return all(
            machine.membership.view.peers[me.node_id].member.version >= news.version
            for machine in cluster.machines
            if machine is not origin
        )

    cluster.kernel.perform(origin, origin.membership.announce(began, news.version))
    if not cluster.run_until(known, step_ns=_STEP_NS // 2, limit_ns=60 * SECOND):
        return None
    return (cluster.kernel.now_ns - began) // MS


def join(nodes: int, seed: int) -> int | None:
    """Start all nodes at once; return when every view is complete."""
    cluster = Cluster(nodes, seed)
    cluster.start()
    if not cluster.run_until(lambda: cluster.complete, step_ns=_STEP_NS, limit_ns=60 * SECOND):
        return None
    return cluster.kernel.now_ns // MS


def heal(nodes: int, seed: int, partition_ms: int = 60_000) -> tuple[int, int] | None:
    """Part a cluster in two halves for so long; return when all held all ALIVE again after the end, and how many
    false DEAD there were among nodes of one half.
    """
    cluster = _settled(nodes, seed)
    half = frozenset(range(nodes // 2))
    other = frozenset(range(nodes // 2, nodes))
    wrong: list[int] = []

    def watch(now_ns: int, machine: Machine, effect: Effect) -> None:
        if isinstance(effect, Changed) and effect.member.state is State.DEAD and effect.old is not State.DEAD:
            about = int(effect.member.node_id[5:])
            if (about in half) == (machine.index in half):
                wrong.append(about)

    cluster.watchers.append(watch)
    cluster.kernel.network.rule("there", Link(blocked=True), half, other)
    cluster.kernel.network.rule("back", Link(blocked=True), other, half)
    cluster.kernel.run(cluster.kernel.now_ns + partition_ms * MS)
    cluster.kernel.network.lift_all()
    began = cluster.kernel.now_ns
    if not cluster.run_until(lambda: cluster.complete, step_ns=_STEP_NS, limit_ns=120 * SECOND):
        return None
    return (cluster.kernel.now_ns - began) // MS, len(wrong)


def idle(nodes: int, seed: int, seconds: int) -> dict[str, int | float]:
    """Let a settled cluster be; return its traffic, and how much simulated time one second of CPU is worth."""
    return _at_rest(_settled(nodes, seed), seconds)


def young(nodes: int, seed: int, seconds: int) -> dict[str, int | float]:
    """The same while pairs still meet for the first time, which costs a third packet and a proof."""
    cluster = Cluster(nodes, seed)
    cluster.start_known()
    cluster.kernel.run(8 * SECOND)
    return _at_rest(cluster, seconds)


def _at_rest(cluster: Cluster, seconds: int) -> dict[str, int | float]:
    kernel, nodes = cluster.kernel, len(cluster.machines)
    bytes_before, datagrams_before = kernel.bytes_sent, kernel.datagrams
    began = time.process_time()
    kernel.run(kernel.now_ns + seconds * SECOND)
    spent = time.process_time() - began
    return {
        "bytesPerSecond": (kernel.bytes_sent - bytes_before) // (nodes * seconds),
        "datagramsPerSecond": round((kernel.datagrams - datagrams_before) / (nodes * seconds), 2),
        "secondsPerCpuSecond": round(seconds / max(spent, 1e-9)),
        "cpuUsPerNodeSecond": round(spent * 1e6 / (nodes * seconds), 1),
    }


def false_verdicts(nodes: int, seed: int, seconds: int, loss_percent: int) -> dict[str, int]:
    """Let a healthy cluster run over a lossy network; count who was suspected and held dead without reason."""
    cluster = _settled(nodes, seed, loss_percent)
    counts = {"suspect": 0, "dead": 0}
    cluster.watchers.append(_counting(counts, frozenset()))
    cluster.kernel.run(cluster.kernel.now_ns + seconds * SECOND)
    return counts


def slow_nodes(nodes: int, seed: int, seconds: int, *, blocked: int, pause_ms: int = 16_000) -> dict[str, int]:
    """Block some nodes for a while, again and again; count verdicts of healthy nodes about healthy ones."""
    cluster = _settled(nodes, seed)
    chosen = list(range(nodes))
    draw = seeded(seed, "blocked").random
    victims = [cluster.machines[chosen.pop(int(draw() * len(chosen)))] for _ in range(blocked)]
    counts = {"suspect": 0, "dead": 0}
    cluster.watchers.append(_counting(counts, frozenset(victim.index for victim in victims)))
    kernel = cluster.kernel
    until_ns = kernel.now_ns + seconds * SECOND
    while kernel.now_ns < until_ns:
        for victim in victims:
            victim.pause()
        kernel.run(kernel.now_ns + pause_ms * MS)
        for victim in victims:
            kernel.perform(victim, victim.resume(kernel.now_ns))
        # Between a moment and half a pause, as in the experiments of Lifeguard.
        kernel.run(kernel.now_ns + int(draw() * pause_ms // 2) * MS)
    return {**counts, "verdicts": counts["suspect"] + counts["dead"]}


def _counting(counts: dict[str, int], excluded: frozenset[int]) -> Observer:
    def watch(now_ns: int, machine: Machine, effect: Effect) -> None:
        if not isinstance(effect, Changed) or machine.index in excluded or int(effect.member.node_id[5:]) in excluded:
            return
        if effect.member.state is State.SUSPECT and effect.old is State.ALIVE:
            counts["suspect"] += 1
        elif effect.member.state is State.DEAD and effect.old is not State.DEAD:
            counts["dead"] += 1

    return watch
