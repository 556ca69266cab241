"""A cluster of simulated nodes, and what a run wants to know about it while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from chaos.sim.kernel import Kernel, Observer, seeded
from chaos.sim.machine import Machine
from relaymesh.core.mesh.effect import Changed, Effect
from relaymesh.core.mesh.member import State
from relaymesh.core.mesh.tuning import Tuning

__all__ = ["NODES_MAX", "SEEDS", "Cluster"]

NODES_MAX: Final = 4_000
SEEDS: Final = 3
"""The first nodes are the seeds of all."""


def _address(index: int) -> str:
    return f"10.{index // 62_500}.{index // 250 % 250}.{index % 250 + 1}:17888"


class Cluster:
    """Nodes on one kernel.

    alive: how many others each node holds ALIVE, by index. watchers: told of every effect that is not a packet.
    """

    def __init__(self, nodes: int, seed: int, tuning: Tuning | None = None, *, shortcuts: bool = True) -> None:
        if not 2 <= nodes <= NODES_MAX:
            raise ValueError(f"{nodes} nodes: use 2 to {NODES_MAX:,}")
        self.seed = seed
        self.tuning = replace(tuning or Tuning(), members_max=max(4_096, nodes + 1))
        self.kernel = Kernel(seed, self._observe, shortcuts=shortcuts)
        self.alive = [0] * nodes
        self.watchers: list[Observer] = []
        seeds = tuple(_address(index) for index in range(min(SEEDS, nodes)))
        for index in range(nodes):
            node_id = f"node-{index:04d}"
            rng = seeded(seed, node_id)
            self.kernel.add(Machine(index, node_id, _address(index), self.tuning, rng, seeds))

    @property
    def machines(self) -> list[Machine]:
        return self.kernel.machines

    @property
    def complete(self) -> bool:
        """Whether every node that is up holds all of these ALIVE."""
        up = [machine.index for machine in self.machines if machine.up]
        return all(self.alive[index] == len(up) - 1 for index in up)

    def start(self) -> None:
        """Start all nodes at once; they know the seeds and nothing else."""
        for machine in self.machines:
            self.start_one(machine)

    def start_known(self) -> None:
        """Start all nodes at once with the list of all others, as after a power cut."""
        for machine in self.machines:
            machine.start(self.kernel.now_ns)
        members = [machine.membership.me for machine in self.machines]
        for machine in self.machines:
            machine.membership.restore(self.kernel.now_ns, members)
            self.alive[machine.index] = len(members) - 1
            self.kernel.timer(machine)

    def acquaint(self) -> None:
        """Let every pair have met before, as in a mesh that has run for an hour: each has proved itself to each."""
        for machine in self.machines:
            for peer in machine.membership.view.peers.values():
                peer.proof = peer.member.address
                peer.proof_generation = peer.welcome = peer.member.generation

    def start_one(self, machine: Machine) -> None:
        self.alive[machine.index] = 0
        machine.start(self.kernel.now_ns)
        self.kernel.timer(machine)

    def run_until(self, done: Callable[[], bool], *, step_ns: int, limit_ns: int) -> bool:
        """Let time pass until something holds, looked at every step; return whether it came in time."""
        until_ns = self.kernel.now_ns + limit_ns
        while not done():
            if self.kernel.now_ns >= until_ns:
                return False
            self.kernel.run(min(until_ns, self.kernel.now_ns + step_ns))
        return True

    def _observe(self, now_ns: int, machine: Machine, effect: Effect) -> None:
        if isinstance(effect, Changed):
            is_alive = effect.member.state is State.ALIVE
            was_alive = effect.old is State.ALIVE
            self.alive[machine.index] += is_alive - was_alive
        for watch in self.watchers:
            watch(now_ns, machine, effect)
