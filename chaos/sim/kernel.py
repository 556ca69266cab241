"""Virtual time: one heap of packets on their way and of nodes that want to be woken.

    heap ──▶ node.wake / node.receive ──packets──▶ network ──▶ heap
              │
              └──▶ an answered probe of a quiet mesh is one step (quiet.py) ──▶ round ──▶ the next, an interval later

A node has one entry in the heap that counts, the earliest (``queued_ns``). When a node moves its timer forward, as the
answer to a probe does, the entry stays and is put off when it comes up; that costs less than moving it. In a quiet mesh
all nodes ask at the same interval, so who has just asked is due after all others: it goes to the end of the ``round``,
a queue in the order of time, and the heap keeps the exceptions.

The times of all events go into a rolling hash, and in the end all that the nodes think, the time of every contact
included: two runs with the same hash have done the same.
"""

from __future__ import annotations

import gc
import hashlib
import random
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from chaos.sim.machine import Machine
from chaos.sim.network import DELAY_MASK, DELAY_SHIFT, LOSS_MASK, LOSS_SHIFT, Network
from chaos.sim.quiet import Quiet
from relaymesh.core.mesh.effect import Effect
from relaymesh.core.mesh.exchange import exchange
from relaymesh.core.mesh.packet import Packet
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.tuning import MS, NEVER_NS

__all__ = ["Arrival", "Kernel", "Observer", "seeded"]

LOOK_NS: Final = 50 * MS
"""How often it is asked whether a loud mesh has become quiet."""
_TRACE_CHUNK: Final = 1 << 12
"""Small enough to be still in the cache of the processor when it is sorted."""
_NODE_BITS: Final = 12
_SOURCES: Final = 1 << _NODE_BITS

Observer = Callable[[int, Machine, Effect], None]
Arrival = Callable[[Machine], Packet | None]
"""Opens a datagram where it arrives; None when it is refused there."""
Entry = tuple[int, int, int, Machine, Machine, Packet | Arrival | None]
"""When, target and source as one number, count, target, source, what arrives (None: time to wake)."""


def seeded(seed: int, label: str) -> random.Random:
    """Return the chance for one purpose: more draws for one do not shift another."""
    digest = hashlib.blake2b(f"{seed}\0{label}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


class Kernel:
    """The clock, the events and the network of one run.

    observer: is told of every effect that is not a packet. carry: makes a datagram of a packet, for runs that encode
    and authenticate: each copy of it, bent or not, then arrives; by default the object itself does, and a bent one does
    not. shortcuts: whether undisturbed probes are done as one step (short: how many); the run is the same without,
    only slower.
    """

    def __init__(self, seed: int, observer: Observer, *, shortcuts: bool = True) -> None:
        self.now_ns = 0
        self.network = Network(seeded(seed, "network"))
        self.machines: list[Machine] = []
        self.observer = observer
        self._sent = 0
        self.bytes_sent = 0
        self.events = 0
        self.shortcuts = shortcuts
        self.short = 0
        self.carry: Callable[[Machine, Packet], Callable[[bool], Arrival]] | None = None
        self._quiet = Quiet()
        self._look_at_ns = 0
        self._by_address: dict[str, Machine] = {}
        self._heap: list[Entry] = []
        self._round: deque[tuple[int, Machine]] = deque()
        self._count = 0
        self._orders: list[tuple[int, int, bool, Callable[[], None]]] = []
        self._trace: list[int] = []
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def datagrams(self) -> int:
        return self._sent + 2 * self.short

    def add(self, machine: Machine) -> None:
        assert len(self.machines) < _SOURCES - 1 and machine.index == len(self.machines)
        self.machines.append(machine)
        self._by_address[machine.address] = machine

    def at(self, when_ns: int, order: Callable[[], None], *, meddles: bool = True) -> None:
        """Do something at a time, before the other events of that time.

        meddles: whether it may change what nodes think or say to each other, or the network; if not, it only looks.
        """
        self._count += 1
        heappush(self._orders, (when_ns, self._count, meddles, order))

    def at_address(self, address: str) -> Machine | None:
        return self._by_address.get(address)

    def inject(self, delay_ns: int, source: Machine, target: Machine, arrival: Arrival) -> None:
        """Let a datagram arrive that its source has not sent now."""
        self._push(self.now_ns + delay_ns, target, source, arrival)

    def perform(self, machine: Machine, effects: list[Effect]) -> None:
        """Send the packets, tell the observer of the rest, and note when the node wants to be woken."""
        self._interfere()
        if effects:
            self._emit(machine, effects)
        self.timer(machine)

    def timer(self, machine: Machine) -> None:
        """Note when a node wants to be woken."""
        when_ns = machine.due_ns()
        if when_ns < machine.queued_ns and when_ns < NEVER_NS // 2:
            machine.queued_ns = when_ns
            self._push(max(when_ns, self.now_ns), machine, machine, None)

    def run(self, until_ns: int) -> None:
        """Let time pass."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._interfere()
            orders = self._orders
            while orders and orders[0][0] < until_ns:
                when_ns, _, meddles, order = heappop(orders)
                self._drain(when_ns)
                self.now_ns = max(self.now_ns, when_ns)
                if meddles:
                    self._interfere()
                order()
            self._drain(until_ns)
            self.now_ns = max(self.now_ns, until_ns)
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

    def _interfere(self) -> None:
        self._quiet.end(self.now_ns)
        self._look_at_ns = self.now_ns

    def _look(self) -> None:
        self._look_at_ns = self.now_ns + LOOK_NS
        if len(self._trace) > _TRACE_CHUNK:
            self._fold()
        if self.shortcuts and self.carry is None and self.network.calm:
            flying = ((entry[4], entry[5]) for entry in self._heap if isinstance(entry[5], Packet))
            self._quiet.look(self.now_ns, self.machines, flying)

    def _push(self, when_ns: int, target: Machine, source: Machine, what: Packet | Arrival | None) -> None:
        self._count += 1
        # At one time: by node, what it wants to do by itself before what comes from others.
        key = target.index << _NODE_BITS | (0 if what is None else source.index + 1)
        heappush(self._heap, (when_ns, key, self._count, target, source, what))

    def _drain(self, until_ns: int) -> None:
        """Handle the events before a time."""
        heap = self._heap
        note = self._trace.append
        emit = self._emit
        quiet = self._quiet
        quiet.stop_at(self.now_ns, until_ns)
        never = NEVER_NS // 2
        while True:
            if quiet.on:
                self._ask_all(until_ns)
            elif self._round:
                self._end_round()
            if not heap or heap[0][0] >= until_ns:
                return
            now_ns, _, _, machine, source, what = heappop(heap)
            self.now_ns = now_ns
            if what is None:
                if machine.queued_ns > now_ns:
                    continue  # put forward since, and done
                machine.queued_ns = NEVER_NS
                when_ns = machine.membership.wake_at_ns if machine.plain else machine.due_ns()
                if when_ns <= now_ns:
                    note(now_ns)
                    if now_ns >= self._look_at_ns and not quiet.on:
                        self._look()
                    effects = machine.membership.wake(now_ns) if machine.plain else machine.wake(now_ns)
                    if effects:
                        emit(machine, effects)
                    if quiet.on:
                        quiet.doubt(machine)
                        if machine.membership.rumors.waiting:
                            quiet.end(now_ns)
                    when_ns = machine.membership.wake_at_ns if machine.plain else machine.due_ns()
            else:
                note(now_ns)
                if what.__class__ is not Packet:
                    assert not isinstance(what, Packet)
                    opened = what(machine)
                    if opened is None:
                        continue
                    what = opened
                assert isinstance(what, Packet)
                if machine.plain:
                    membership = machine.membership
                    effects = membership.receive(now_ns, source.address, what)
                    if effects:
                        emit(machine, effects)
                    if quiet.on and membership.rumors.waiting:
                        quiet.end(now_ns)
                    when_ns = membership.wake_at_ns
                else:
                    effects = machine.receive(now_ns, source.address, what)
                    if effects:
                        emit(machine, effects)
                    when_ns = machine.due_ns()
            if when_ns < machine.queued_ns and when_ns < never:
                machine.queued_ns = when_ns
                self._count += 1
                at_ns = when_ns if when_ns > now_ns else now_ns
                heappush(heap, (at_ns, machine.index << _NODE_BITS, self._count, machine, machine, None))

    def _ask_all(self, until_ns: int) -> None:
        """Let the nodes of a quiet mesh probe one after the other, until the quiet ends or a packet arrives."""
        heap, ring = self._heap, self._round
        quiet = self._quiet
        trace = self._trace
        find = self._by_address.get
        network = self.network
        floor_ns, delays, loss = network.floor_ns, network.delays, network.loss_of_mask
        short, sent_bytes, now_ns = 0, 0, self.now_ns
        calm_until_ns, done_ns = quiet.until_ns, quiet.done_ns
        last_ns = ring[-1][0] if ring else 0
        stop_ns = min(until_ns, heap[0][0]) if heap else until_ns
        try:
            while True:
                if ring and ring[0][0] < stop_ns:
                    at_ns, machine = ring.popleft()
                else:
                    if not heap or heap[0][0] >= until_ns:
                        return
                    if ring and ring[0][0] == stop_ns:
                        # At one time the heap knows the order.
                        self._wait(ring.popleft()[1], stop_ns)
                    at_ns, _, _, machine, _, what = heap[0]
                    if what is not None or not machine.plain:
                        return
                    heappop(heap)
                    stop_ns = min(until_ns, heap[0][0]) if heap else until_ns
                if machine.queued_ns > at_ns:
                    continue  # put forward since, and done
                membership = machine.membership
                due_ns = membership.wake_at_ns
                if due_ns <= at_ns:
                    now_ns = at_ns
                    size = 0
                    peer = membership.ask_next() if due_ns == at_ns else None
                    if peer is not None and (other := find(peer.member.address)) is not None and other.plain:
                        # How long both datagrams take in a calm network; no call is made for them.
                        chance = hash((at_ns, machine.out_salt, other.in_salt))
                        asked_ns = at_ns + floor_ns + delays[chance >> DELAY_SHIFT & DELAY_MASK]
                        again = hash((asked_ns, other.out_salt, machine.in_salt))
                        answered_ns = asked_ns + floor_ns + delays[again >> DELAY_SHIFT & DELAY_MASK]
                        if answered_ns >= calm_until_ns:
                            quiet.renew(at_ns)
                            calm_until_ns = quiet.until_ns
                        if answered_ns < calm_until_ns and not (
                            loss
                            and ((chance >> LOSS_SHIFT & LOSS_MASK) < loss or (again >> LOSS_SHIFT & LOSS_MASK) < loss)
                        ):
                            size = exchange(membership, peer, other.membership, at_ns, asked_ns, answered_ns)
                    if not size:
                        self.now_ns, quiet.done_ns = at_ns, done_ns
                        self._wake_quietly(machine, peer)
                        if not quiet.on:
                            return
                        calm_until_ns = quiet.until_ns
                        stop_ns = min(until_ns, heap[0][0]) if heap else until_ns
                        continue
                    if answered_ns > done_ns:
                        done_ns = answered_ns
                    short += 1
                    sent_bytes += size
                    trace += (at_ns, asked_ns, answered_ns)
                    due_ns = membership.wake_at_ns
                machine.queued_ns = due_ns
                if due_ns > last_ns:
                    ring.append((due_ns, machine))
                    last_ns = due_ns
                else:
                    self._wait(machine, due_ns)
                    stop_ns = min(stop_ns, due_ns)
        finally:
            self.now_ns, quiet.done_ns = now_ns, done_ns
            self.short += short
            self.bytes_sent += sent_bytes
            if len(trace) > _TRACE_CHUNK:
                self._fold()

    def _wake_quietly(self, machine: Machine, peer: Peer | None) -> None:
        """Let a node of a quiet mesh do what cannot be done at once. peer: whom it is going to ask."""
        now_ns, membership = self.now_ns, machine.membership
        self._trace.append(now_ns)
        machine.queued_ns = NEVER_NS
        effects = membership.wake(now_ns) if peer is None else membership.ask(now_ns, peer)
        if effects:
            self._emit(machine, effects)
        self.timer(machine)
        self._quiet.doubt(machine)
        if membership.rumors.waiting:
            self._quiet.end(now_ns)

    def _wait(self, machine: Machine, when_ns: int) -> None:
        self._count += 1
        heappush(self._heap, (when_ns, machine.index << _NODE_BITS, self._count, machine, machine, None))

    def _end_round(self) -> None:
        for when_ns, machine in self._round:
            if machine.queued_ns == when_ns:
                self._wait(machine, when_ns)
        self._round.clear()

    def _emit(self, machine: Machine, effects: list[Effect]) -> None:
        network = self.network
        calm, carry = network.calm, self.carry
        now_ns = self.now_ns
        salt = machine.out_salt
        key = machine.index + 1
        loss, floor_ns, delays = network.loss_of_mask, network.floor_ns, network.delays
        heap, by_address = self._heap, self._by_address
        for effect in effects:
            if effect.__class__ is not Packet:
                self.observer(now_ns, machine, effect)
                continue
            assert isinstance(effect, Packet)
            self._sent += 1
            self.bytes_sent += effect.size
            target = by_address.get(effect.to)
            if target is None:
                continue
            if calm:
                # How long a datagram takes in a calm network, told by its number among those that its sender sends now.
                chance = hash((now_ns, salt, target.in_salt))
                salt += 1
                if loss and (chance >> LOSS_SHIFT & LOSS_MASK) < loss:
                    continue
                self._count += 1
                when_ns = now_ns + floor_ns + delays[chance >> DELAY_SHIFT & DELAY_MASK]
                what = effect if carry is None else carry(machine, effect)(False)
                heappush(heap, (when_ns, target.index << _NODE_BITS | key, self._count, target, machine, what))
            else:
                self._emit_roughly(machine, target, effect)

    def _emit_roughly(self, machine: Machine, target: Machine, packet: Packet) -> None:
        copies = None if self.carry is None else self.carry(machine, packet)
        for delay, bent in self.network.deliveries(machine.index, target.index):
            if copies is not None:
                self._push(self.now_ns + delay, target, machine, copies(bent))
            elif not bent:  # else its authentication code would not fit
                self._push(self.now_ns + delay, target, machine, packet)

    def _fold(self) -> None:
        # An exchange that was done at once has noted what lies ahead.
        self._trace.sort()
        done = bisect_left(self._trace, self.now_ns)
        folded = array("Q", self._trace[:done])
        del self._trace[:done]
        self.events += len(folded)
        if array("Q", [1]).tobytes()[0] != 1:
            folded.byteswap()
        self._hash.update(folded.tobytes())
