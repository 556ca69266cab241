"""Virtual time: one heap of events for the next moments, a wheel of timers for what comes later.

    wheel slot (50 ms) opens ──▶ timers of nodes that are still due in it ──▶ heap ──▶ node.wake / node.receive
                                                                              ▲              │ packets
                                                                              └── network ◀──┘

Most timers of a healthy mesh are moved before they fire (the answer to a probe comes long before its timeout), so a
timer waits in the wheel, where moving it costs nothing, and enters the heap only just before it is due.

Every event goes into a rolling hash: two runs with the same hash have done the same.
"""

from __future__ import annotations

import gc
import hashlib
import random
from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from chaos.sim.machine import Machine
from chaos.sim.network import CHANCE, Network
from relaymesh.core.mesh.effect import Effect
from relaymesh.core.mesh.packet import Packet
from relaymesh.core.mesh.tuning import MS, NEVER_NS

__all__ = ["SLOT_NS", "Kernel", "Observer", "seeded"]

SLOT_NS: Final = 50 * MS
_TRACE_CHUNK: Final = 1 << 14
_NODE_BITS: Final = 4096

Observer = Callable[[int, Machine, Effect], None]
Arrival = Callable[[Machine], Packet | None]
"""Opens a datagram where it arrives; None when it is refused there."""


def seeded(seed: int, label: str) -> random.Random:
    """Return the chance for one purpose: more draws for one do not shift another."""
    digest = hashlib.blake2b(f"{seed}\0{label}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


class Kernel:
    """The clock, the events and the network of one run.

    observer: is told of every effect that is not a packet. carry: what happens to a packet on its way, for runs that
    encode and authenticate; by default the object itself arrives, and a corrupted one does not.
    """

    def __init__(self, seed: int, observer: Observer) -> None:
        self.now_ns = 0
        self.network = Network(seeded(seed, "network"))
        self.machines: list[Machine] = []
        self.observer = observer
        self.datagrams = 0
        self.bytes_sent = 0
        self.events = 0
        self.carry: Callable[[Machine, Packet, bool], Arrival] | None = None
        self._by_address: dict[str, int] = {}
        self._heap: list[tuple[int, int, int, str, Packet | Arrival | None]] = []
        self._count = 0
        self._wheel: dict[int, list[int]] = {}
        self._at_slot = 0
        self._orders: list[tuple[int, int, Callable[[], None]]] = []
        self._trace: array[int] = array("q")
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, machine: Machine) -> None:
        assert len(self.machines) < _NODE_BITS and machine.index == len(self.machines)
        self.machines.append(machine)
        self._by_address[machine.address] = machine.index

    def at(self, when_ns: int, order: Callable[[], None]) -> None:
        """Do something at a time, before the events of its slot."""
        self._count += 1
        heappush(self._orders, (when_ns, self._count, order))

    def perform(self, machine: Machine, effects: list[Effect]) -> None:
        """Send the packets, tell the observer of the rest, and note when the node wants to be woken."""
        if effects:
            self._emit(machine, effects)
        self.timer(machine)

    def timer(self, machine: Machine) -> None:
        """Note when a node wants to be woken."""
        when_ns = machine.due_ns()
        if when_ns >= NEVER_NS // 2:
            return
        slot = when_ns // SLOT_NS
        if slot < machine.slot:
            machine.slot = max(slot, self._at_slot)
            if slot <= self._at_slot:
                self._count += 1
                heappush(self._heap, (max(when_ns, self.now_ns), self._count, machine.index, "", None))
            else:
                self._wheel.setdefault(slot, []).append(machine.index)
        elif slot == machine.slot == self._at_slot and when_ns < machine.queued_ns:
            machine.queued_ns = when_ns
            self._count += 1
            heappush(self._heap, (max(when_ns, self.now_ns), self._count, machine.index, "", None))

    def run(self, until_ns: int) -> None:
        """Let time pass."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            while self.now_ns < until_ns:
                if not self._heap:
                    self._skip(until_ns)
                slot_end = (self._at_slot + 1) * SLOT_NS
                stop = min(slot_end, until_ns)
                while self._orders and self._orders[0][0] < stop:
                    when_ns, _, order = heappop(self._orders)
                    self._drain(when_ns)
                    self.now_ns = max(self.now_ns, when_ns)
                    order()
                self._drain(stop)
                self.now_ns = stop
                if stop == slot_end:
                    self._open_slot()
        finally:
            if collecting:
                gc.enable()

    def trace_hash(self) -> str:
        """Return the hash of everything that has happened, and of all views as they are now."""
        self._fold()
        final = self._hash.copy()
        for machine in self.machines:
            final.update(machine.fingerprint().encode())
        final.update(f"{self.datagrams} {self.bytes_sent}".encode())
        return final.hexdigest()

    def _skip(self, until_ns: int) -> None:
        """Jump over slots in which nothing is due."""
        at_slot, last = self._at_slot, until_ns // SLOT_NS
        if self._orders:
            last = min(last, self._orders[0][0] // SLOT_NS)
        while at_slot + 1 < last and at_slot + 1 not in self._wheel:
            at_slot += 1
        self._at_slot = at_slot

    def _open_slot(self) -> None:
        self._at_slot += 1
        at_slot = self._at_slot
        if len(self._trace) > _TRACE_CHUNK:
            self._fold()
        machines = self.machines
        slot_end = (at_slot + 1) * SLOT_NS
        wheel = self._wheel
        for index in wheel.pop(at_slot, ()):
            machine = machines[index]
            if machine.slot != at_slot:
                continue  # moved to an earlier slot since
            when_ns = machine.due_ns()
            if when_ns < slot_end:
                machine.queued_ns = when_ns
                self._count += 1
                heappush(self._heap, (when_ns, self._count, index, "", None))
            elif when_ns < NEVER_NS // 2:
                slot = machine.slot = when_ns // SLOT_NS
                waiting = wheel.get(slot)
                if waiting is None:
                    wheel[slot] = [index]
                else:
                    waiting.append(index)
            else:
                machine.slot = NEVER_NS

    def _drain(self, until_ns: int) -> None:
        """Handle the events of the heap before a time."""
        heap = self._heap
        machines = self.machines
        note = self._trace.append
        emit = self._emit
        at_slot = self._at_slot
        wheel = self._wheel
        pop = heappop
        while heap and heap[0][0] < until_ns:
            now_ns, _, index, source, packet = pop(heap)
            machine = machines[index]
            self.now_ns = now_ns
            if packet is None:
                if machine.due_ns() > now_ns:
                    if machine.slot == at_slot:
                        machine.slot = NEVER_NS
                        self.timer(machine)
                    continue
                machine.slot = NEVER_NS
                machine.queued_ns = NEVER_NS
                note(~(now_ns * _NODE_BITS + index))
                effects = machine.wake(now_ns)
            else:
                note(now_ns * _NODE_BITS + index)
                if not isinstance(packet, Packet):
                    packet = packet(machine)
                    if packet is None:
                        continue
                effects = machine.receive(now_ns, source, packet)
            if effects:
                emit(machine, effects)
            # As ``timer``, without the call: this is the innermost loop.
            when_ns = machine.membership.wake_at_ns if machine.plain else machine.due_ns()
            slot = when_ns // SLOT_NS
            if at_slot < slot < machine.slot:
                machine.slot = slot
                waiting = wheel.get(slot)
                if waiting is None:
                    wheel[slot] = [index]
                else:
                    waiting.append(index)
            elif slot <= at_slot:
                self.timer(machine)

    def _emit(self, machine: Machine, effects: list[Effect]) -> None:
        network = self.network
        calm = network.calm and self.carry is None
        index = machine.index
        base = network.base
        floor_ns = base.floor_us * 1000
        table = network.table(base.mean_us)
        rng = network.rng
        for effect in effects:
            if effect.__class__ is not Packet:
                self.observer(self.now_ns, machine, effect)
                continue
            assert isinstance(effect, Packet)
            self.datagrams += 1
            self.bytes_sent += effect.size
            target = self._by_address.get(effect.to)
            if target is None:
                continue
            if calm:
                if base.loss and rng.random() * CHANCE < base.loss:
                    continue
                delay = floor_ns + table[rng.getrandbits(10)]
                self._count += 1
                heappush(self._heap, (self.now_ns + delay, self._count, target, machine.address, effect))
            else:
                self._emit_roughly(index, machine, target, effect)

    def _emit_roughly(self, index: int, machine: Machine, target: int, packet: Packet) -> None:
        for delay, corrupted in self.network.deliveries(index, target):
            if self.carry is None:
                if corrupted:
                    continue  # its authentication code would not fit
                arriving: Packet | Arrival = packet
            else:
                arriving = self.carry(machine, packet, corrupted)
            self._count += 1
            heappush(self._heap, (self.now_ns + delay, self._count, target, machine.address, arriving))

    def _fold(self) -> None:
        self.events += len(self._trace)
        self._hash.update(self._trace.tobytes() if array("q", [1]).tobytes()[0] == 1 else _swapped(self._trace))
        del self._trace[:]


def _swapped(trace: array[int]) -> bytes:
    other = array("q", trace)
    other.byteswap()
    return other.tobytes()
