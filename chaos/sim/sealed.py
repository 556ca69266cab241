"""Packets on their way as bytes: sealed by the sender, perhaps bent, opened by the receiver, as with real sockets."""

from __future__ import annotations

import random
from collections.abc import Callable

from chaos.sim.kernel import Kernel
from chaos.sim.machine import Machine
from relaymesh.core.mesh.packet import Packet
from relaymesh.wire.mesh_key import KeyRing, MeshKey
from relaymesh.wire.mesh_packet import Opener, Sealer

__all__ = ["Sealed"]

_LABEL = "simulation"


class Sealed:
    """The codec of a run; every start of a node has its own sequence, and every receiver its own windows."""

    def __init__(self, kernel: Kernel, rng: random.Random) -> None:
        self._kernel = kernel
        self._rng = rng
        self._ring = KeyRing(MeshKey.derive("a secret of the simulation", _LABEL))
        self._sealers: dict[tuple[int, int], Sealer] = {}
        self._openers: dict[tuple[int, int], Opener] = {}

    def carry(self, sender: Machine, packet: Packet, corrupted: bool) -> Callable[[Machine], Packet | None]:
        key = (sender.index, packet.sender.generation)
        sealer = self._sealers.get(key)
        if sealer is None:
            sealer = self._sealers[key] = Sealer(self._ring, _LABEL, sender.node_id)
        data = sealer.seal(packet)
        assert len(data) == packet.size
        if corrupted:
            bent = bytearray(data)
            bent[int(self._rng.random() * len(bent))] ^= 1 << int(self._rng.random() * 8)
            data = bytes(bent)

        def arrive(receiver: Machine) -> Packet | None:
            run = (receiver.index, receiver.generation)
            opener = self._openers.get(run)
            if opener is None:
                opener = self._openers[run] = Opener(self._ring, _LABEL, receiver.address)
            opened = opener.open(self._kernel.now_ns, sender.address, data)
            return opened if isinstance(opened, Packet) else None

        return arrive
