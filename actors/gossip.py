"""GossipActor: owns the socket of the mesh and the machine that speaks through it.

    socket thread ──DatagramsArrived──▶ ┌─────────────┐ ──packets──▶ socket
    timer ──GossipWake────────────────▶ │ GossipActor │ ──MembersChanged, MeshCheckpoint──▶ membership
    discovery ──AddressHints──────────▶ └─────────────┘ ──once a second──▶ MeshBoard: may this node work?

    BINDING ──bound──▶ WAITING (GossipUp is told) ──BeginGossip──▶ SPEAKING
       ▲ backoff │                                                    │ the actor crashes: anew, in a later generation
       └─────────┘ the address is not to be had, or forbidden

The rules are in ``relaymesh.core.mesh``. Until the store has the generation on its disk nothing is said. What arrives
is handled newest first; how late the loop runs is seen by the machine itself, which then trusts itself less.
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

from actors.address import Address
from actors.base import Actor
from actors.event_port import EventPort
from actors.mesh_board import MeshBoard
from actors.timer import Timers
from relaymesh.core.mesh.company import Company
from relaymesh.core.mesh.effect import Changed, Conflicted, Effect, HeldBack, Proved, Pruned, Renewed, Unopposed
from relaymesh.core.mesh.hint import Hints, Source
from relaymesh.core.mesh.liveness import Evidence, Mode, Verdict, judge
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Kind, Packet
from relaymesh.core.mesh.swim import Membership
from relaymesh.core.mesh.tuning import MS, NEVER_NS, SECOND, Tuning
from relaymesh.core.setting_table import Settings
from relaymesh.net.datagram import is_loopback_host, knows_host
from relaymesh.net.gossip_socket import GossipSocket, advertised_address
from relaymesh.wire.mesh import (
    AddressHints,
    BeginGossip,
    DatagramsArrived,
    GossipUp,
    GossipWake,
    HeardEvents,
    MemberRow,
    MembersChanged,
    MeshCheckpoint,
    pack_marks,
    unpack_marks,
)
from relaymesh.wire.mesh_key import KeyRing
from relaymesh.wire.mesh_packet import Opener, Refusal, Sealer
from relaymesh.wire.node_report import MeshReport

__all__ = ["CHECKPOINT_NS", "GossipActor", "GossipNeeds", "Place", "Speaking"]

log = logging.getLogger("relaymesh.gossip")

BEAT_NS: Final = SECOND
CHECKPOINT_NS: Final = 5 * SECOND
EARLY_NS: Final = 200 * MS
BATCH_MAX: Final = 64
"""Datagrams that are handled before anything else gets its turn."""
_OF_ANOTHER_MESH: Final = frozenset({Refusal.UNKNOWN_KEY, Refusal.MALFORMED})
"""Another secret, or another name. Noise and damage cannot be told from attacks, so nobody is told of them."""
_LOOKED_AT_MAX: Final = 16
"""So many seeds are looked at for whether they can be reached at all, once a second while nobody is there."""
BIND_NS: Final = (SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 30 * SECOND)
"""How long another try to bind waits."""


class GossipNeeds(Protocol):
    """What this actor asks of the rest of the node."""

    def settings(self) -> Settings: ...
    def key_ring(self) -> KeyRing: ...
    def leaving(self) -> bool: ...
    def now_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom to speak.

    host, port: to bind to; the port is the first of ``gossip_socket.PORTS``. advertise: ``HOST:PORT`` or an address
    without a port, empty for where it is bound. label: of the mesh. seeded: peers were configured, so a node that
    hears from none of those it knew is cut off. seeds: addresses of them that need no looking up.
    """

    node_id: str
    host: str
    port: int
    advertise: str
    label: str
    seeded: bool
    seeds: tuple[str, ...] = ()


class Speaking:
    """The machine of one generation, with what seals and opens its packets."""

    def __init__(
        self, membership: Membership, sealer: Sealer, opener: Opener, events: EventPort, since_ns: int
    ) -> None:
        self.membership = membership
        self.events = events
        self.sealer = sealer
        self.opener = opener
        self.since_ns = since_ns
        self.checkpoint_at_ns = since_ns + CHECKPOINT_NS
        self.told_merged = 0
        self.told_marks = b""
        self.heard_until_ns = since_ns
        self.company = Company(membership.me.address, since_ns)


class GossipActor(Actor):
    """See the module."""

    takes = AddressHints | BeginGossip | DatagramsArrived | GossipWake

    def __init__(
        self,
        place: Place,
        board: MeshBoard,
        needs: GossipNeeds,
        timers: Timers,
        membership: Address,
    ) -> None:
        super().__init__()
        self._place = place
        self._board = board
        self._needs = needs
        self._timers = timers
        self._membership = membership
        self._hints = Hints()
        self._hints.tell(0, Source.SEEDS, place.seeds, NEVER_NS)
        self._socket: GossipSocket | None = None
        self._tries = 0
        self._speaking: Speaking | None = None
        self._settings = needs.settings()
        self._timer_at_ns = NEVER_NS
        self._beat_at_ns = 0
        self._notices: tuple[str, ...] = ()

    def started(self) -> None:
        self._wake()

    def receive(self, message: Any) -> None:
        match message:
            case DatagramsArrived():
                self._take()
            case GossipWake():
                self._timer_at_ns = NEVER_NS
                self._wake()
            case AddressHints(source, addresses, keep_ms):
                self._hint(source, addresses, keep_ms)
            case BeginGossip():
                self._begin(message)
            case _:
                assert_never(message)
        self._set_timer()

    def stopping(self) -> None:
        speaking = self._speaking
        if speaking is not None:
            if self._needs.leaving():
                self._perform(speaking.membership.leave(self._timers.now_ns()))
            self._checkpoint(speaking)
        self.crashed()

    def crashed(self) -> None:
        self._timers.cancel(self.address, "wake")
        self._speaking = None
        self._board.address = ""
        self._board.verdict = Verdict(True)
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    # The socket.

    def _bind(self) -> None:
        place, settings = self._place, self._settings
        try:
            signed = not self._needs.key_ring().primary.open
            if not (signed or settings.allow_insecure_gossip or is_loopback_host(place.host)):
                if not knows_host(place.host):
                    raise OSError(errno.EADDRNOTAVAIL, f"no address is known of {place.host}")
                raise PermissionError(
                    f"{place.host} can be reached from other machines, and gossip is not signed:"
                    " set gossipSharedSecret on all nodes"
                )
            bound = GossipSocket(place.host, place.port, self._arrived, clock=self._timers.now_ns)
        except (OSError, OverflowError, ValueError) as error:  # the last: a name that is none
            self._not_bound(error)
            return
        try:
            self._board.address = advertised_address(place.advertise, bound.address)
        except OSError as error:
            bound.close()
            self._not_bound(error)
            return
        self._socket, self._tries, self._board.problem = bound, 0, ""
        log.info(
            "gossip of %s is bound to %s, others reach it at %s", place.node_id, bound.address, self._board.address
        )
        self._ask_for_generation()

    def _not_bound(self, error: Exception) -> None:
        place, tries = self._place, self._tries
        self._tries += 1
        reason = getattr(error, "strerror", None) or str(error)
        self._board.problem = f"gossip cannot use {place.host} port {place.port} ({reason}): this node is in no mesh"
        if tries & (tries - 1) == 0:  # 0, 1, 2, 4, ...: it may stay so for days
            log.warning("%s; it is tried again, and work goes on", self._board.problem)
        self._report()
        self._timer(self._timers.now_ns() + BIND_NS[min(tries, len(BIND_NS) - 1)])

    def _arrived(self) -> bool:
        return self.address.tell(DatagramsArrived())

    def _ask_for_generation(self) -> None:
        self._membership.tell(GossipUp(self._board.address))
        self._timer(self._timers.now_ns() + CHECKPOINT_NS)

    def _take(self) -> None:
        socket, speaking = self._socket, self._speaking
        if socket is None:
            return
        datagrams = socket.take(BATCH_MAX)
        if speaking is None:
            return  # nobody can be answered yet
        now_ns = self._timers.now_ns()
        effects: list[Effect] = []
        for source, data in datagrams:
            packet = speaking.opener.open(now_ns, source, data)
            if not isinstance(packet, Packet):
                if packet in _OF_ANOTHER_MESH:
                    speaking.company.called(now_ns, source)
                continue
            if packet.kind is Kind.EVENT:
                effects += speaking.events.take(self._needs.now_ms(), source, packet, data)
            else:
                for effect in speaking.membership.receive(now_ns, source, packet):
                    if isinstance(effect, Proved):  # before the next one is opened
                        speaking.opener.proved(effect.member)
                    else:
                        effects.append(effect)
                speaking.events.used(packet, data)
        self._perform(effects)
        if len(datagrams) == BATCH_MAX:
            self.address.tell(DatagramsArrived())

    # The machine.

    def _begin(self, message: BeginGossip) -> None:
        if self._socket is None or self._speaking is not None:
            return
        now_ns = self._timers.now_ns()
        place, ring = self._place, self._needs.key_ring()
        me = Member(place.node_id, self._board.address, message.generation, 0, State.ALIVE)
        rng = random.Random(random.SystemRandom().getrandbits(128))
        seeds = self._hints.addresses(now_ns)
        membership = Membership(me, Tuning.of(self._settings), rng, now_ns, seeds)
        membership.restore(
            now_ns,
            (Member(row.node_id, row.address, row.generation, row.version, State.ALIVE) for row in message.members),
        )
        opener = Opener(ring, place.label, me.address)
        opener.windows.restore(unpack_marks(message.marks))
        sealer = Sealer(ring, place.label, place.node_id)
        events = EventPort(membership, self._settings, ring, rng, self._needs.now_ms())
        self._speaking = Speaking(membership, sealer, opener, events, now_ns)
        self._wake()

    def _wake(self) -> None:
        now_ns = self._timers.now_ns()
        if self._socket is None:
            self._settings = self._needs.settings()
            self._bind()
        elif self._speaking is None:
            self._ask_for_generation()  # the store was busy, or refused
        else:
            machine = self._speaking.membership
            if now_ns >= machine.wake_at_ns:
                self._perform(machine.wake(now_ns))
            if now_ns >= self._beat_at_ns:
                self._beat_at_ns = now_ns + BEAT_NS
                self._beat(now_ns, self._speaking)

    def _hint(self, source: int, addresses: tuple[str, ...], keep_ms: int) -> None:
        now_ns = self._timers.now_ns()
        until_ns = now_ns + keep_ms * MS if keep_ms > 0 else NEVER_NS
        changed = self._hints.tell(now_ns, Source(source), addresses, until_ns)
        if changed and self._speaking is not None:
            self._speaking.membership.seed(now_ns, self._hints.addresses(now_ns))

    def _set_timer(self) -> None:
        if self._speaking is not None:
            # The beat comes along with what is due anyway, mostly once a second; it can wait for it for as long again.
            due_ns = self._speaking.membership.wake_at_ns
            self._timer(due_ns if due_ns <= self._beat_at_ns + BEAT_NS else self._beat_at_ns)

    def _timer(self, at_ns: int) -> None:
        # One that comes early is harmless, but a wake-up costs more than to set it anew: most probes are answered long
        # before their timeout.
        if at_ns < self._timer_at_ns or at_ns > self._timer_at_ns + EARLY_NS:
            self._timer_at_ns = at_ns
            self._timers.after(max(0, at_ns - self._timers.now_ns()), self.address, GossipWake(), key="wake")

    def _perform(self, effects: Iterable[Effect]) -> None:
        speaking, socket = self._speaking, self._socket
        assert speaking is not None and socket is not None
        changed: dict[str, MemberRow] = {}
        held_back: list[MemberRow] = []
        pruned: list[str] = []
        for effect in effects:
            match effect:
                case Packet():
                    socket.send(effect.to, speaking.sealer.seal(effect))
                case Changed(member, shown):
                    changed[member.node_id] = _row(member, shown)
                case HeldBack(member, shown):
                    held_back.append(_row(member, shown))
                case Pruned(members):
                    pruned += [member.node_id for member in members]
                case Proved():
                    pass  # done as the packet was taken
                case Renewed():
                    pass  # goes to the disk with the next checkpoint: a later start takes a later generation anyway
                case Conflicted(other):
                    self._replaced(other)
                case Unopposed(other):
                    self._goes_on(other, speaking)
                case _:
                    assert_never(effect)
        if changed or held_back or pruned:
            self._membership.tell(MembersChanged(tuple(changed.values()), tuple(held_back), tuple(pruned)))

    def _replaced(self, other: Member) -> None:
        log.error(
            "another live node, at %s, has the node id %s and the better right to it: this one takes no more steps;"
            " give it another --node-id",
            other.address,
            other.node_id,
        )
        self._beat_at_ns = 0  # at once

    def _goes_on(self, other: Member, speaking: Speaking) -> None:
        log.warning(
            "the other node with the node id %s, at %s, is gone: this one takes steps again, in generation %d",
            other.node_id,
            other.address,
            speaking.membership.me.generation,
        )
        self._beat_at_ns = speaking.checkpoint_at_ns = 0  # at once, with its generation to the disk

    # Once a second.

    def _beat(self, now_ns: int, speaking: Speaking) -> None:
        settings = self._needs.settings()
        if settings is not self._settings:
            self._settings = settings
            speaking.membership.retune(Tuning.of(settings))
            speaking.events.retune(settings)
        ring = self._needs.key_ring()
        if ring is not speaking.sealer.ring:
            speaking.sealer.ring = speaking.opener.ring = ring
        self._perform(speaking.events.due(self._needs.now_ms(), ring))
        news = speaking.events.news(self._needs.now_ms())
        if news is not None:
            self._membership.tell(HeardEvents(news.beats, news.keys))
        hints = self._hints.addresses(now_ns)
        if hints != speaking.membership.seeds:
            speaking.membership.seed(now_ns, hints)
        self._judge(now_ns, speaking)
        self._notice(now_ns, speaking)
        self._report()
        if now_ns >= speaking.checkpoint_at_ns:
            speaking.checkpoint_at_ns = now_ns + CHECKPOINT_NS
            self._checkpoint(speaking)

    def _judge(self, now_ns: int, speaking: Speaking) -> None:
        machine = speaking.membership
        peers = machine.view.peers.values()
        # Who has left says nothing any more, and who was never met cannot be missed.
        met = [peer for peer in peers if peer.proof_generation >= 0 and peer.member.state is not State.LEFT]
        conflict = machine.opinions.conflict
        self._board.verdict = judge(
            Evidence(
                now_ns=now_ns,
                mode=Mode.ANY if self._place.seeded and met else Mode.SOLO,
                echoes_ns=(machine.last_echo_ns,),
                voters=len(met) + 1,
                since_ns=speaking.since_ns,
                fresh_ns=machine.tuning.suspect_after_ns,
                lag_ns=machine.lag_ns,
                replaced_by=conflict.address if conflict is not None else "",
            )
        )

    def _notice(self, now_ns: int, speaking: Speaking) -> None:
        machine = speaking.membership
        asked, live = self._hints.addresses(now_ns), machine.view.live
        # Who has our id answers, and is no member: that nobody answers there would send people to their firewall.
        alone = self._place.seeded and machine.opinions.conflict is None
        unreached = self._unreached(asked) if alone and not live and speaking.company.alone(now_ns) else ()
        notices = speaking.company.notices(now_ns, live=live, asked=asked, seeded=alone, unreached=unreached)
        for sentence in notices:
            if sentence not in self._notices:
                log.warning("%s", sentence)
        self._notices = notices

    def _unreached(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Return to which of the first addresses nothing can be sent; as many as are looked at in a moment."""
        socket, own = self._socket, self._board.address
        assert socket is not None
        return tuple(address for address in asked[:_LOOKED_AT_MAX] if address != own and not socket.reaches(address))

    def _checkpoint(self, speaking: Speaking) -> None:
        machine = speaking.membership
        marks = pack_marks(speaking.opener.windows.marks())
        merged = machine.counts["merged"]
        now_ns, since_ns = self._timers.now_ns(), speaking.heard_until_ns
        speaking.heard_until_ns = now_ns
        heard = tuple(
            (node_id, peer.rtt_ns // 1_000 if peer.rtt_ns >= 0 else -1)
            for node_id, peer in machine.view.peers.items()
            if peer.heard_ns >= since_ns
        )
        news = marks if marks != speaking.told_marks else b""
        self._membership.tell(
            MeshCheckpoint(_row(machine.me, machine.me.state), heard, news, merged - speaking.told_merged)
        )
        speaking.told_marks, speaking.told_merged = marks, merged

    def _report(self) -> None:
        board, socket, speaking = self._board, self._socket, self._speaking
        if socket is None or speaking is None:
            board.report = MeshReport(address=board.address, problem=board.problem)
            return
        machine, counts = speaking.membership, socket.counts
        refused = {reason.value: count for reason, count in speaking.opener.counts.items()}
        for word in ("too_long", "too_many", "overflowed"):
            if counts[word]:
                refused[word] = refused.get(word, 0) + counts[word]
        board.report = MeshReport(
            address=board.address,
            problem=board.problem,
            pause=board.verdict.reason,
            notices=self._notices,
            live=machine.view.live,
            lag_s=machine.lag_ns / SECOND,
            health=machine.health.score,
            sent=counts["sent"],
            sent_bytes=counts["sent_bytes"],
            received=counts["received"],
            received_bytes=counts["received_bytes"],
            refused=refused,
            events={word: count for word, count in machine.counts.items() if count},
        )


def _row(member: Member, shown: State) -> MemberRow:
    return MemberRow(member.node_id, member.address, member.generation, member.version, int(member.state), int(shown))
