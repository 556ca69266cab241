"""One simulated node: its core, its clock, and what happens to its process.

``now_ns`` below is the time of the simulation; the core sees the node's own clock. A paused or slow process keeps its
datagrams in a buffer, as a socket does, and loses the newest when that is full.
"""

from __future__ import annotations

import random
from typing import Final

from relaymesh.core.mesh.effect import Effect
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Packet
from relaymesh.core.mesh.swim import Membership
from relaymesh.core.mesh.tuning import NEVER_NS, Tuning

__all__ = ["Machine"]

_BUFFER_MAX: Final = 1_024
_MILLION: Final = 1_000_000


class Machine:
    """A node of the simulation. plain: its clock is the simulation's, and its process runs.

    starts: how often its process was started. queued_ns: when the kernel wakes it next. out_salt, in_salt: 28 bits
    each, for the chance of what it sends and gets.
    """

    __slots__ = (
        "_backlog",
        "_clock_base_ns",
        "_clock_from_ns",
        "_rate_ppm",
        "_seeds",
        "_slow_ns",
        "_tuning",
        "address",
        "generation",
        "in_salt",
        "index",
        "membership",
        "node_id",
        "out_salt",
        "paused",
        "plain",
        "queued_ns",
        "rng",
        "starts",
        "up",
    )

    def __init__(
        self, index: int, node_id: str, address: str, tuning: Tuning, rng: random.Random, seeds: tuple[str, ...]
    ) -> None:
        self.index = index
        self.node_id = node_id
        self.address = address
        self.rng = rng
        self.out_salt = rng.getrandbits(28)
        self.in_salt = rng.getrandbits(28)
        self.generation = 0
        self.starts = 0
        self.queued_ns = NEVER_NS
        self.up = False
        self.paused = False
        self.plain = True
        self._tuning = tuning
        self._seeds = seeds
        self._backlog: list[tuple[str, Packet]] = []
        self._slow_ns = 0
        self._rate_ppm = 0
        self._clock_base_ns = 0
        self._clock_from_ns = 0
        self.membership: Membership

    def start(self, now_ns: int) -> None:
        """Start the process: a new generation, nothing known but the seeds."""
        self.generation += 1
        self.starts += 1
        me = Member(self.node_id, self.address, self.generation, 0, State.ALIVE)
        self.membership = Membership(me, self._tuning, self.rng, self.clock_ns(now_ns), self._seeds)
        self.up = True
        self.paused = False
        self._backlog.clear()
        self._plain()

    def crash(self) -> None:
        self.up = False
        self._backlog.clear()
        self._plain()

    def leave(self, now_ns: int) -> list[Effect]:
        """Stop in order; return what it still says."""
        effects = self.membership.leave(self.clock_ns(now_ns))
        self.crash()
        return effects

    def pause(self) -> None:
        self.paused = True
        self._plain()

    def resume(self, now_ns: int) -> list[Effect]:
        """Go on after a pause: what has arrived meanwhile is read first."""
        self.paused = False
        self._plain()
        if not self.up:
            return []
        waiting, self._backlog = self._backlog, []
        local_ns = self.clock_ns(now_ns)
        effects: list[Effect] = []
        for source, packet in waiting:
            effects += self.membership.receive(local_ns, source, packet)
        return effects

    def slow(self, slow_ns: int) -> None:
        """Let every wake-up come so much late; 0 to end it."""
        self._slow_ns = slow_ns
        self._plain()

    def set_clock(self, now_ns: int, *, jump_ns: int = 0, rate_ppm: int | None = None) -> None:
        """Let the node's clock jump forward, or run faster or slower from now on.

        Raises ValueError for a jump back: a monotonic clock has none.
        """
        if jump_ns < 0:
            raise ValueError("a monotonic clock does not go back")
        self._clock_base_ns = self.clock_ns(now_ns) + jump_ns
        self._clock_from_ns = now_ns
        if rate_ppm is not None:
            self._rate_ppm = rate_ppm
        self._plain()

    def clock_ns(self, now_ns: int) -> int:
        """Return what the node's own clock shows."""
        passed = now_ns - self._clock_from_ns
        return self._clock_base_ns + passed + passed * self._rate_ppm // _MILLION

    def true_ns(self, clock_ns: int) -> int:
        """Return when, in time of the simulation, the node's clock shows this, if it goes on as it does now."""
        ahead = clock_ns - self._clock_base_ns
        return self._clock_from_ns - (-ahead * _MILLION // (_MILLION + self._rate_ppm))

    @property
    def slow_ns(self) -> int:
        """How much too late the process does everything."""
        return self._slow_ns

    def due_ns(self) -> int:
        """Return when, in time of the simulation, the process runs next by itself."""
        if self.plain:
            return self.membership.wake_at_ns
        if not self.up or self.paused:
            return NEVER_NS
        ahead = self.membership.wake_at_ns - self._clock_base_ns
        if ahead >= NEVER_NS // 2:
            return NEVER_NS
        passed = -(-ahead * _MILLION // (_MILLION + self._rate_ppm))
        return self._clock_from_ns + max(0, passed) + self._slow_ns

    def wake(self, now_ns: int) -> list[Effect]:
        if self.plain:
            return self.membership.wake(now_ns)
        if not self.up or self.paused:
            return []
        waiting, self._backlog = self._backlog, []
        local_ns = self.clock_ns(now_ns)
        effects: list[Effect] = []
        for source, packet in waiting:
            effects += self.membership.receive(local_ns, source, packet)
        return effects + self.membership.wake(local_ns)

    def receive(self, now_ns: int, source: str, packet: Packet) -> list[Effect]:
        if self.plain:
            return self.membership.receive(now_ns, source, packet)
        if not self.up:
            return []
        if self.paused or self._slow_ns:
            if len(self._backlog) < _BUFFER_MAX:
                self._backlog.append((source, packet))
            return []
        return self.membership.receive(self.clock_ns(now_ns), source, packet)

    def fingerprint(self) -> str:
        """Return all that the node thinks, as text."""
        if not self.up:
            return f"{self.node_id} down\n"
        membership = self.membership
        own = f"{membership.view.digest:x} {membership.health.score} {membership.last_echo_ns}"
        lines = [f"{self.node_id} {membership.me!r} {own}"]
        for node_id in sorted(membership.view.peers):
            peer = membership.view.peers[node_id]
            lines.append(f"{peer.member!r} {peer.shown.name} {peer.heard_ns} {peer.echo_ns} {peer.rtt_ns}")
        return "\n".join(lines) + "\n"

    def _plain(self) -> None:
        self.plain = (
            self.up
            and not self.paused
            and not self._slow_ns
            and not self._rate_ppm
            and self._clock_base_ns == self._clock_from_ns
        )
