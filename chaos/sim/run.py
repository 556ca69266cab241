"""One run of a scenario: the cluster, the faults in their time, the history, the checks, and the figures."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import Any, Final, NamedTuple

from chaos.checker import Bounds, Broken, check
from chaos.history import Event
from chaos.sim.cluster import Cluster
from chaos.sim.kernel import seeded
from chaos.sim.machine import Machine
from chaos.sim.network import LAN, Link
from chaos.sim.scenario import Fault, Scenario
from chaos.sim.sealed import Sealed
from chaos.sim.step_store import StepStore
from chaos.sim.worker import Cut, Worker
from relaymesh.core.mesh.effect import Changed, Effect, Renewed
from relaymesh.core.mesh.member import State
from relaymesh.core.mesh.tuning import MS, SECOND

__all__ = ["Result", "run"]


_WORK: Final = {
    "steps": "submit",
    "claims": "claim",
    "commits": "commit",
    "refusedResults": "reject",
    "takenBack": "reclaim",
    "abandoned": "abandon",
}


class Result(NamedTuple):
    """broken: violations. figures: for people, by camelCase name. trace: the hash of the run."""

    broken: tuple[Broken, ...]
    figures: dict[str, Any]
    trace: str
    history: tuple[Event, ...]


class _Run:
    def __init__(self, scenario: Scenario, shortcuts: bool, store: StepStore | None) -> None:
        self.scenario = scenario
        self.cluster = Cluster(scenario.nodes, scenario.seed, shortcuts=shortcuts)
        self.kernel = self.cluster.kernel
        self.history: list[Event] = []
        self.complete_ns = -1
        self.crashes: dict[str, dict[str, Any]] = {}  # of nodes that are down now
        self.crash_log: list[dict[str, Any]] = []
        self.false_dead = 0
        self.suspicions = 0
        self.slow: set[int] = set()
        self.cluster.watchers.append(self.watch)
        self.kernel.network.set_base(scenario.link.link())
        if scenario.link_until:
            self.kernel.at(scenario.link_until * MS, partial(self.kernel.network.set_base, LAN))
        self.sealed: Sealed | None = None
        if scenario.codec:
            rng = seeded(scenario.seed, "corruption")
            self.sealed = Sealed(self.kernel, rng, self.note, scenario.intruder_percent)
            self.kernel.carry = self.sealed.carry
            self.cluster.watchers.append(self.sealed.watch)
        self.store = store or StepStore()
        self.store.note = partial(self.note, "store")
        self.workers: list[Worker] = []
        if scenario.work.steps:
            self._employ()

    def _employ(self) -> None:
        scenario, kernel = self.scenario, self.kernel
        numbers = count(1).__next__
        for machine in self.cluster.machines:
            rng, note = seeded(scenario.seed, f"work of {machine.node_id}"), partial(self.note, machine.node_id)
            lease_ms = scenario.work.lease_ms
            self.workers.append(Worker(kernel, machine, self.store, rng, note, numbers, lease_ms))
        draw = seeded(scenario.seed, "steps").random
        for number in range(scenario.work.steps):
            when_ns = int(draw() * scenario.work.duration) * MS
            kernel.at(when_ns, partial(self._submit, f"step-{number:04d}"))

    def _submit(self, step: str) -> None:
        self.store.submit(self.kernel.now_ns // MS, step)

    def note(self, where: str, what: str, /, **value: Any) -> None:
        self.history.append(Event(self.kernel.now_ns // MS, where, what, value))

    def watch(self, now_ns: int, machine: Machine, effect: Effect) -> None:
        if isinstance(effect, Renewed):
            machine.generation = max(machine.generation, effect.member.generation)
        if not isinstance(effect, Changed):
            return
        member = effect.member
        value = {"about": member.node_id, "generation": member.generation, "version": member.version}
        # A node's clock may run faster than the history's, or jump; its dwell times are its own.
        if machine.index in self.slow:
            value["percent"] = 0
        self.note(machine.node_id, "member", state=member.state.name, shown=effect.shown.name, **value)
        crash = self.crashes.get(member.node_id)
        if member.state is State.SUSPECT and effect.old is State.ALIVE:
            self.suspicions += 1
            if crash is not None:
                crash.setdefault("firstSuspectMs", now_ns // MS - crash["atMs"])
        elif member.state is State.DEAD and effect.old is not State.DEAD:
            if crash is None:
                self.false_dead += 1
            else:
                crash["lastDeadMs"] = now_ns // MS - crash["atMs"]

    def start(self, machine: Machine) -> None:
        self.cluster.start_one(machine)
        self.note(machine.node_id, "start", generation=machine.generation)
        self.crashes.pop(machine.node_id, None)
        if self.workers:
            self.workers[machine.index].start()

    def plan(self, number: int, fault: Fault) -> None:
        begins_ns = fault.at * MS
        self.kernel.at(begins_ns, lambda: self.begin(number, fault))
        if fault.duration:
            self.kernel.at(begins_ns + fault.duration * MS, lambda: self.end(number, fault))

    def begin(self, number: int, fault: Fault) -> None:
        machines = [self.cluster.machines[index] for index in fault.nodes]
        network, kernel = self.kernel.network, self.kernel
        self.note("", "fault", nodes=[f"node-{index:04d}" for index in fault.touched], fault=fault.fault)
        nodes = frozenset(fault.nodes)
        others = frozenset(fault.to_nodes) if fault.to_nodes else None
        if fault.fault == "partition":
            away = others if others is not None else frozenset(range(self.scenario.nodes)) - nodes
            network.rule(f"{number} out", Link(blocked=True), nodes, away)
            if not fault.one_way:
                network.rule(f"{number} in", Link(blocked=True), away, nodes)
        elif fault.fault == "link":
            network.rule(f"{number} out", fault.state.link(), nodes, others)
        elif fault.fault == "epoch":
            self.store.raise_epoch()
        for machine in machines:
            if fault.fault in ("crash", "leave"):
                if not machine.up:
                    continue
                self.note(machine.node_id, fault.fault, generation=machine.generation)
                if fault.fault == "crash":
                    machine.crash()
                    crash = {"node": machine.node_id, "atMs": kernel.now_ns // MS}
                    self.crashes[machine.node_id] = crash
                    self.crash_log.append(crash)
                else:
                    kernel.perform(machine, machine.leave(kernel.now_ns))
                if self.workers:
                    self.workers[machine.index].stop()
            elif fault.fault == "store":
                if self.workers:
                    self.workers[machine.index].cut = Cut.ANSWERS if fault.one_way else Cut.ALL
            elif fault.fault == "pause":
                machine.pause()
            elif fault.fault == "slow":
                machine.slow(fault.ms * MS)
            elif fault.fault == "clock":
                self.slow.add(machine.index)
                machine.set_clock(kernel.now_ns, jump_ns=fault.ms * MS, rate_ppm=fault.ppm)
            kernel.timer(machine)

    def end(self, number: int, fault: Fault) -> None:
        self.kernel.network.lift(f"{number} out")
        self.kernel.network.lift(f"{number} in")
        self.note("", "heal", nodes=[f"node-{index:04d}" for index in fault.touched], fault=fault.fault)
        for index in fault.nodes:
            machine = self.cluster.machines[index]
            if fault.fault in ("crash", "leave"):
                if not machine.up:
                    self.start(machine)
            elif fault.fault == "pause":
                if machine.paused:
                    self.kernel.perform(machine, machine.resume(self.kernel.now_ns))
                    if self.workers and machine.up:
                        self.workers[index].resume()
            elif fault.fault == "store":
                if self.workers:
                    self.workers[index].cut = Cut.NONE
            elif fault.fault == "slow":
                machine.slow(0)
            elif fault.fault == "clock":
                machine.set_clock(self.kernel.now_ns, rate_ppm=0)
            self.kernel.timer(machine)

    def go(self) -> Result:
        scenario = self.scenario
        if scenario.start == "join":
            for machine in self.cluster.machines:
                self.start(machine)
        else:
            self.cluster.start_known()
            names = [machine.node_id for machine in self.cluster.machines]
            for machine in self.cluster.machines:
                known = [name for name in names if name != machine.node_id]
                self.note(machine.node_id, "start", generation=machine.generation, known=known)
                if self.workers:
                    self.workers[machine.index].start()
        for number, fault in enumerate(scenario.faults):
            self.plan(number, fault)
        healed_ns = max((fault.at + fault.duration for fault in scenario.faults), default=0) * MS
        until_ns = scenario.seconds * SECOND
        began = time.process_time()
        joined_ns = self._reach(min(until_ns, 10 * SECOND), lambda: self.cluster.complete)
        if healed_ns > self.kernel.now_ns:
            self.kernel.run(min(until_ns, healed_ns))
        whole_ns = self._reach(until_ns, lambda: self.cluster.complete)
        self.kernel.run(until_ns)
        spent = time.process_time() - began
        self._last_looks()
        self.note("", "end", nodes=[machine.node_id for machine in self.cluster.machines if machine.up])
        tuning = self.cluster.tuning
        # A judge whose clock jumps has not waited as long as it thinks: then only the fencing is sure.
        jumps = any(fault.fault == "clock" and fault.ms for fault in scenario.faults)
        bounds = Bounds(
            suspect_dwell_ms=tuning.suspect_dwell_ns // MS,
            dead_dwell_ms=tuning.dead_dwell_ns // MS,
            exclusive=not jumps,
        )
        return Result(
            tuple(check(self.history, bounds)),
            self._figures(joined_ns, healed_ns, whole_ns, spent),
            self._trace_hash(),
            tuple(self.history),
        )

    def _last_looks(self) -> None:
        for machine in self.cluster.machines:
            if machine.up:
                self.note(machine.node_id, "sizes", **machine.membership.sizes())
        if self.sealed is not None:
            self.note("", "intrusions", **self.sealed.intrusions)
        if self.workers:
            self.note("store", "final", steps=[row.step for row in self.store.rows])

    def _trace_hash(self) -> str:
        trace = self.kernel.trace_hash()
        if not self.workers:
            return trace
        return blake2b((trace + self.store.fingerprint()).encode(), digest_size=16).hexdigest()

    def _reach(self, until_ns: int, done: Callable[[], bool]) -> int:
        """Let time pass until something holds; return when, or -1."""
        while not done():
            if self.kernel.now_ns >= until_ns:
                return -1
            self.kernel.run(min(until_ns, self.kernel.now_ns + 50 * MS))
        return self.kernel.now_ns

    def _figures(self, joined_ns: int, healed_ns: int, whole_ns: int, spent: float) -> dict[str, Any]:
        scenario, kernel = self.scenario, self.kernel
        happened = Counter(event.f for event in self.history) if self.workers else Counter[str]()
        work = {what: happened[name] for what, name in _WORK.items()} if self.workers else {}
        return {
            "nodes": scenario.nodes,
            "seconds": scenario.seconds,
            "seed": scenario.seed,
            "viewsCompleteMs": joined_ns // MS if joined_ns >= 0 else None,
            "healedMs": max(0, whole_ns - healed_ns) // MS if scenario.faults and whole_ns >= 0 else None,
            "crashes": self.crash_log,
            "suspicions": self.suspicions,
            "falseDead": self.false_dead,
            "datagrams": kernel.datagrams,
            "oneStepProbes": kernel.short,
            "bytesPerNodeSecond": kernel.bytes_sent // (scenario.nodes * scenario.seconds),
            "simulatedPerCpuSecond": round(scenario.seconds / max(spent, 1e-9)),
            **work,
        }


def run(scenario: Scenario, *, shortcuts: bool = True, store: StepStore | None = None) -> Result:
    """Run a scenario from its beginning to its end.

    shortcuts: see ``Kernel``; the result is the same without. store: of the steps, a fresh one by default.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _Run(scenario, shortcuts, store).go()
    finally:
        if collecting:
            gc.enable()
