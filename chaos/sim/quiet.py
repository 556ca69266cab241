"""When a question and its answer may be one step: while nothing can happen between them that would change them.

    loud ──nobody has news or doubts, all views are equal, nothing else is on its way──▶ quiet
    quiet ──a node has news, or somebody interferes──▶ loud

In a quiet mesh every packet is a PING or an ACK that says nothing but itself, or belongs to a probe that goes through
helpers. What can end the quiet is known beforehand: an order of the scenario, the end of ``run`` (then the caller may
interfere), a probe that stays unanswered (its end is known when it begins), a suspicion or a dwell time that runs out.
So an exchange that ends before the first of these (``until_ns``) cannot be disturbed, and doing it at once gives what
doing it packet by packet gives: the same times, the same draws of chance (those of the network depend on nothing but
sender, receiver and time), the same entries in the trace. The tests run both and compare the trace hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from chaos.sim.machine import Machine
from relaymesh.core.mesh.packet import Kind, Packet
from relaymesh.core.mesh.tuning import NEVER_NS

__all__ = ["Quiet"]

_HARMLESS: Final = frozenset({Kind.PING, Kind.ACK, Kind.PING_REQ, Kind.NACK, Kind.RELAYED, Kind.ECHO})


class Quiet:
    """Whether a mesh is quiet, and until when nothing can disturb it.

    on: quiet now. until_ns: exchanges that end before it are undisturbed; 0 while it is loud.
    done_ns: when the last one ends that was done at once.
    """

    def __init__(self) -> None:
        self.on = False
        self.until_ns = 0
        self._stop_ns = 0
        self._doubts: list[tuple[int, int, Machine]] = []
        self._loud: Machine | None = None
        self.done_ns = 0

    def look(self, now_ns: int, machines: Sequence[Machine], flying: Iterable[tuple[Machine, Packet]]) -> None:
        """Find out whether the mesh is quiet. flying: the packets on their way, and who has sent each."""
        # Who had news a moment ago has most likely some now, which spares the look at all others.
        loud, self._loud = self._loud, None
        if loud is not None and loud.plain and not _calm(loud):
            self._loud = loud
            return
        digest = 0
        doubts: list[tuple[int, int, Machine]] = []
        for machine in machines:
            if not machine.up or machine.paused:
                continue
            if not machine.plain:
                return
            membership = machine.membership
            view = membership.view
            # As ``_calm``, without the call: a look is at all nodes.
            if membership.rumors.waiting or view.doubted is not None or membership.repair.differs:
                self._loud = machine
                return
            ours = view.digest
            if not ours or (digest and ours != digest):
                return
            digest = ours
            if membership.opinions.due_ns != NEVER_NS:
                doubts.append((membership.opinions.due_ns, machine.index, machine))
            if membership.probe.nonce:
                doubts.append((membership.probe.verdict_ns, machine.index, machine))
        for sender, packet in flying:
            if (
                packet.updates
                or packet.kind not in _HARMLESS
                or packet.digest not in (0, digest)
                or packet.sender is not sender.membership.me
            ):
                return
        heapify(doubts)
        self._doubts = doubts
        self.on = True
        self.renew(now_ns)

    def end(self, now_ns: int) -> None:
        """Something has happened that may change what nodes say."""
        # What was done at once was over before; else the argument above has a hole.
        assert not self.on or now_ns >= self.done_ns
        self.on = False
        self.until_ns = 0

    def stop_at(self, now_ns: int, stop_ns: int) -> None:
        """Somebody may interfere at this time."""
        self._stop_ns = stop_ns
        if self.on:
            self.renew(now_ns)

    def doubt(self, machine: Machine) -> None:
        """A node has done something by itself: note when that may end the quiet."""
        membership = machine.membership
        if membership.probe.nonce:
            heappush(self._doubts, (membership.probe.verdict_ns, machine.index, machine))
        if membership.opinions.due_ns != NEVER_NS:
            heappush(self._doubts, (membership.opinions.due_ns, machine.index, machine))
        if self._doubts:
            self.until_ns = min(self.until_ns, self._doubts[0][0])

    def renew(self, now_ns: int) -> None:
        """Forget doubts that have passed or were answered."""
        doubts = self._doubts
        while doubts:
            when_ns, _, machine = doubts[0]
            membership = machine.membership
            open_probe = membership.probe.nonce and membership.probe.verdict_ns == when_ns
            if when_ns >= now_ns and (open_probe or membership.opinions.due_ns == when_ns):
                self.until_ns = min(self._stop_ns, when_ns)
                return
            heappop(doubts)
        self.until_ns = self._stop_ns


def _calm(machine: Machine) -> bool:
    """Whether a node has nothing to say, asks in its round only, and has seen views that are equal to its own."""
    membership = machine.membership
    return not membership.rumors.waiting and membership.view.doubted is None and not membership.repair.differs
