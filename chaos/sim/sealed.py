"""Packets on their way as bytes: sealed by the sender, perhaps bent, opened by the receiver, as with real sockets.

Beside the senders there may be an intruder, who has recorded datagrams and sends them again, bends them, or makes some
with a key of his own. ``intrusions`` counts what he tried and what changed something anywhere, which must be nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from chaos.sim.kernel import Arrival, Kernel
from chaos.sim.machine import Machine
from chaos.sim.step_store import Note
from relaymesh.core.mesh.effect import Effect, Proved
from relaymesh.core.mesh.packet import Packet
from relaymesh.core.mesh.tuning import MS, SECOND
from relaymesh.wire.mesh_key import KeyRing, MeshKey
from relaymesh.wire.mesh_packet import Opener, Sealer

__all__ = ["Sealed"]

_LABEL: Final = "simulation"
_REPLAY_SPAN_NS: Final = 30 * SECOND


class Sealed:
    """The codec of a run; every start of a node has its own sequence, and every receiver its own windows.

    intruder_percent: of so many packets a copy comes again later, or one under another key beside it.
    """

    def __init__(self, kernel: Kernel, rng: random.Random, note: Note, intruder_percent: int = 0) -> None:
        self._kernel = kernel
        self._rng = rng
        self._note = note
        self._intruder = intruder_percent
        self._ring = KeyRing(MeshKey.derive("a secret of the simulation", _LABEL))
        self._foreign = KeyRing(MeshKey.derive("a secret of somebody else", _LABEL))
        self._sealers: dict[tuple[int, int], Sealer] = {}
        self._openers: dict[tuple[int, int], Opener] = {}
        self.intrusions = {"bent": 0, "replayed": 0, "foreign": 0, "taken": 0}

    def carry(self, sender: Machine, packet: Packet) -> Callable[[bool], Arrival]:
        """Return a datagram; each call of it is a copy that arrives, bent or not."""
        key = (sender.index, sender.starts)
        sealer = self._sealers.get(key)
        if sealer is None:
            sealer = self._sealers[key] = Sealer(self._ring, _LABEL, sender.node_id)
        data = sealer.seal(packet)
        assert len(data) == packet.size
        came: list[int] = []  # to which runs of its receiver
        if self._intruder and self._rng.random() * 100 < self._intruder:
            self._intrude(sender, packet, data, sealer, came)

        def copy(bent: bool) -> Arrival:
            if bent:
                return self._attack("bent", sender, self._bend(data))
            return arrive

        def arrive(receiver: Machine) -> Packet | None:
            came.append(receiver.starts)
            return self._open(sender, receiver, data)

        return copy

    def watch(self, _now_ns: int, machine: Machine, effect: Effect) -> None:
        """Close the window of a sender that has proved itself, as the shell of a real node does."""
        opener = self._openers.get((machine.index, machine.starts))
        if isinstance(effect, Proved) and opener is not None:
            opener.proved(effect.member)

    def _bend(self, data: bytes) -> bytes:
        bent = bytearray(data)
        bent[int(self._rng.random() * len(bent))] ^= 1 << int(self._rng.random() * 8)
        return bytes(bent)

    def _open(self, sender: Machine, receiver: Machine, data: bytes) -> Packet | None:
        run = (receiver.index, receiver.starts)
        opener = self._openers.get(run)
        if opener is None:
            opener = self._openers[run] = Opener(self._ring, _LABEL, receiver.address)
        opened = opener.open(self._kernel.now_ns, sender.address, data)
        return opened if isinstance(opened, Packet) else None

    def _intrude(self, sender: Machine, packet: Packet, data: bytes, sealer: Sealer, came: list[int]) -> None:
        target = self._kernel.at_address(packet.to)
        if target is None:
            return
        if self._rng.random() < 0.5:
            again, then = self._attack("replayed", sender, data), target.starts

            def arrive(receiver: Machine) -> Packet | None:
                # One that was lost is no repetition to the run that it was sent to, it is only late.
                late = receiver.starts == then and then not in came
                return None if late else again(receiver)

            delay = SECOND + int(self._rng.random() * _REPLAY_SPAN_NS)
            self._kernel.inject(delay, sender, target, arrive)
        else:
            forger = Sealer(self._foreign, _LABEL, sender.node_id)
            forger.sequence = sealer.sequence + 1_000
            self._kernel.inject(MS, sender, target, self._attack("foreign", sender, forger.seal(packet)))

    def _attack(self, how: str, sender: Machine, data: bytes) -> Arrival:
        def arrive(receiver: Machine) -> Packet | None:
            self.intrusions[how] += 1
            packet = self._open(sender, receiver, data)
            if packet is None or not receiver.up or receiver.paused:
                return None
            # It may be answered, by a node that has started since and knows nobody; but it must not be believed.
            before = _belief(receiver)
            effects = receiver.receive(self._kernel.now_ns, sender.address, packet)
            if _belief(receiver) != before:
                self.intrusions["taken"] += 1
                self._note(receiver.node_id, "intrusion", how=how, kind=packet.kind.name, of=sender.node_id)
            self._kernel.perform(receiver, effects)
            return None

        return arrive


def _belief(machine: Machine) -> tuple[object, ...]:
    view = machine.membership.view
    proven = [(peer.member.order, peer.proof, peer.heard_ns, peer.echo_ns) for peer in view.peers.values()]
    return (view.me.order, view.digest, tuple(view.parts), tuple(proven))
