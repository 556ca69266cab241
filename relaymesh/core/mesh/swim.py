"""Membership of one node: SWIM with Lifeguard's refinements, digests, proofs and repair.

    receive(now, source, packet) ─┐
    wake(now), when wake_at_ns is due ─┼──▶ effects in the order in which they must happen
    start, leave, prune, seeds ───┘

    probe.py asks · opinion.py judges · rumor.py spreads · repair.py compares · proof.py says who may be believed
    outbox.py makes packets · upkeep.py joins, and looks for who came back

There is one timer: after each call ``wake_at_ns`` says when ``wake`` is to be called. A call that is early, late or
doubled does no harm. A call that is very late tells the machine that its process stood still.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Final

from relaymesh.core.mesh.effect import Effect, Proved
from relaymesh.core.mesh.health import Health
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.opinion import Opinions
from relaymesh.core.mesh.outbox import JOIN_BYTES, NO_NEWS, Outbox
from relaymesh.core.mesh.packet import Kind, Packet, Update, base_bytes
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.probe import Probe, Stage
from relaymesh.core.mesh.proof import ASKED_MAX, Challenges, Relay
from relaymesh.core.mesh.repair import RECORDS_MAX, Repair
from relaymesh.core.mesh.rumor import Rumors, transmit_limit
from relaymesh.core.mesh.tuning import NEVER_NS, Tuning
from relaymesh.core.mesh.upkeep import RELAYS_MAX, SEEDS_MAX, Upkeep
from relaymesh.core.mesh.view import GRAVES_MAX, View

__all__ = ["JOIN_BYTES", "RECORDS_MAX", "SEEDS_MAX", "Membership"]

_LEAVE_FANOUT: Final = 8
_ALIVE: Final = State.ALIVE
_PING: Final = Kind.PING
_ACK: Final = Kind.ACK
_GOSSIP: Final = Kind.GOSSIP


class Membership:
    """What one node knows and does about the others.

    me: its own record, with a generation that is higher than in every earlier run and kept on the disk.
    rng: for all choices and nonces. seeds: addresses to join through. other_due_ns: when something else than the probe
    is due.
    """

    __slots__ = (
        "_challenges",
        "_eager_until_ns",
        "_gossip_due_ns",
        "_gossip_last_ns",
        "_peers",
        "counts",
        "health",
        "lag_ns",
        "last_echo_ns",
        "opinions",
        "other_due_ns",
        "outbox",
        "probe",
        "repair",
        "rumors",
        "tuning",
        "upkeep",
        "view",
        "wake_at_ns",
    )

    def __init__(self, me: Member, tuning: Tuning, rng: random.Random, now_ns: int, seeds: Iterable[str] = ()) -> None:
        self.tuning = tuning
        self.view = View(me, rng)
        self.health = Health(tuning.suspect_after_ns)
        self.rumors = Rumors()
        self.opinions = Opinions(self.view, self.rumors, self.health, tuning)
        self.counts = self.opinions.counts
        self.last_echo_ns = -1
        self.lag_ns = 0
        self._peers = self.view.peers
        self.outbox = Outbox(self.opinions, tuning, rng)
        self._challenges = Challenges(rng)
        # Spread over the interval, so that nodes that start together do not ask together.
        self.probe = Probe(tuning, self.health, now_ns + int(rng.random() * tuning.probe_interval_ns))
        self.upkeep = Upkeep(self.outbox, self.opinions, tuning, rng, now_ns, seeds)
        self.repair = Repair(self.view, self.outbox, tuning, now_ns)
        self._gossip_due_ns = NEVER_NS
        self._gossip_last_ns = now_ns - tuning.gossip_interval_ns
        self._eager_until_ns = now_ns + tuning.eager_ns
        self.wake_at_ns = now_ns
        self.other_due_ns = NEVER_NS
        self.plan()

    @property
    def me(self) -> Member:
        return self.outbox.me

    @property
    def seeds(self) -> tuple[str, ...]:
        return self.upkeep.seeds

    def shown(self, node_id: str) -> State | None:
        """Return the state of a member that counts for claims and for people; None when it is unknown."""
        if node_id == self.me.node_id:
            return self.me.state
        peer = self._peers.get(node_id)
        return None if peer is None else peer.shown

    def shown_alive(self) -> list[str]:
        """Return the ids of all nodes that count as ALIVE, this one included, sorted."""
        alive = [node_id for node_id, peer in self._peers.items() if peer.shown is _ALIVE]
        if self.me.state is _ALIVE and self.opinions.conflict is None:
            alive.append(self.me.node_id)
        return sorted(alive)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how large each collection is, and its cap."""
        members_max = self.tuning.members_max
        return {
            "members": (len(self._peers) + 1, members_max),
            "news": (len(self.rumors), members_max),
            "questions": (len(self.outbox.questions), ASKED_MAX),
            "relays": (self.upkeep.relays, RELAYS_MAX),
            "graves": (self.view.graves, GRAVES_MAX),
        }

    # --- what happens ---

    def receive(self, now_ns: int, source: str, packet: Packet) -> list[Effect]:
        """Take a packet that is authenticated and no repetition. source: the address that it came from."""
        out: list[Effect] = []
        if now_ns - self.wake_at_ns >= self.tuning.late_ns:
            self._was_late(now_ns)
        sender = packet.sender
        peer = self._peers.get(sender.node_id)
        if peer is None or peer.proof != source or peer.proof_generation != sender.generation:
            self._unproven(now_ns, source, packet, peer, out)
        else:
            self._proven(now_ns, source, packet, peer, out)
        if self._gossip_due_ns == NEVER_NS and self.rumors.waiting:
            self._gossip_due_ns = max(
                now_ns + self.tuning.gossip_delay_ns, self._gossip_last_ns + self.tuning.gossip_interval_ns
            )
            self.plan()
        elif self.opinions.due_ns < self.other_due_ns:
            self.plan()
        if self.view.doubted is not None and not self.probe.nonce and now_ns < self.probe.due_ns:
            self.probe.due_ns = now_ns
            self.plan()
        return out

    def wake(self, now_ns: int) -> list[Effect]:
        """Do what is due."""
        out: list[Effect] = []
        if now_ns - self.wake_at_ns >= self.tuning.late_ns:
            self._was_late(now_ns)
        else:
            self.lag_ns = 0
        if now_ns >= self.probe.due_ns:
            self._step_probe(now_ns, out)
        if now_ns >= self.opinions.due_ns:
            self.opinions.settle(now_ns, out)
        if now_ns >= self.upkeep.due_ns:
            self.upkeep.step(now_ns, out)
        if now_ns >= self._gossip_due_ns:
            self._gossip(now_ns, out)
        elif self._gossip_due_ns == NEVER_NS and self.rumors.waiting:
            self._gossip_due_ns = max(now_ns, self._gossip_last_ns + self.tuning.gossip_interval_ns)
        self.plan()
        return out

    def announce(self, now_ns: int, version: int) -> list[Effect]:
        """Raise this node's own version, because something about it has changed; all others will hear of it."""
        out: list[Effect] = []
        me = self.me
        self._set_me(Member(me.node_id, me.address, me.generation, max(version, me.version + 1), me.state), out)
        self._gossip_due_ns = min(self._gossip_due_ns, now_ns)
        self.plan()
        return out

    def restore(self, now_ns: int, members: Iterable[Member]) -> None:
        """Take in what was known before a restart. It is hearsay until each has proved itself again."""
        for member in members:
            known = member.node_id == self.me.node_id or member.node_id in self._peers
            if not known and not member.gone and len(self._peers) < self.tuning.members_max - 1:
                self.view.add(member if member.state is _ALIVE else member.but(_ALIVE), now_ns)
        self.rumors.limit = transmit_limit(self.view.live + 1)

    def leave(self, now_ns: int) -> list[Effect]:
        """Stop in order: tell some members at once; the caller sends what is returned and ends."""
        out: list[Effect] = []
        me = self.me
        self._set_me(Member(me.node_id, me.address, me.generation, me.version, State.LEFT), out)
        for peer in self.view.pick(_LEAVE_FANOUT):
            self.outbox.send(out, peer.member.address, _GOSSIP, 0, self.outbox.news())
        self.probe.rest(NEVER_NS // 2)
        self.upkeep.stop_joining()
        self._gossip_due_ns = NEVER_NS
        self.plan()
        return out

    def prune(self, now_ns: int, older_than_ns: int, limit: int) -> tuple[int, list[Effect]]:
        """Forget members that have been gone for so long, by hand; return how many, and the effects."""
        out: list[Effect] = []
        return self.opinions.prune(now_ns, older_than_ns, limit, out), out

    def retune(self, tuning: Tuning) -> None:
        """Go by other settings from now on; what is running keeps the deadlines that it has."""
        self.tuning = self.opinions.tuning = self.probe.tuning = tuning
        self.outbox.tuning = self.repair.tuning = self.upkeep.tuning = tuning
        self.health.patience_ns = tuning.suspect_after_ns

    def seed(self, now_ns: int, seeds: Sequence[str]) -> None:
        """Join through these addresses from now on; they are asked while this node is alone."""
        self.upkeep.join(now_ns, seeds)
        if self.seeds and self.view.live == 0:
            self._eager_until_ns = now_ns + self.tuning.eager_ns
            self.plan()

    # --- packets ---

    def _proven(self, now_ns: int, source: str, packet: Packet, peer: Peer, out: list[Effect]) -> None:
        if now_ns > peer.heard_ns:
            peer.heard_ns = now_ns
        _, kind, sender, _, digest, updates, _, _ = packet
        if peer.member is not sender and sender.order > peer.member.order:
            self._hear(now_ns, Update(sender), out, own=True)
        if updates:
            self._hear_all(now_ns, updates, out)
        if kind is _PING:
            self.outbox.ack(out, source, packet, peer)
        elif kind is _ACK:
            self._acked(now_ns, source, packet, peer, out)
        elif kind is not _GOSSIP:
            self._proven_rest(now_ns, source, packet, out)
        if digest:
            if digest == self.view.digest:
                self.repair.differs = 0
            elif kind is not _GOSSIP:
                self.repair.unequal(now_ns, source, out, eager=now_ns < self._eager_until_ns)

    def _proven_rest(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        kind, nonce = packet.kind, packet.nonce
        if kind is Kind.PING_REQ:
            extra = packet.extra
            assert isinstance(extra, tuple)
            asked = self._peers.get(extra[0])
            if asked is not None:
                self.upkeep.relay(now_ns, Relay(source, nonce), asked, out)
                self.plan()
        elif kind is Kind.RELAYED:
            if nonce == self.probe.nonce and nonce:
                self.probe.answered(now_ns)
                self.last_echo_ns = now_ns
                self.plan()
        elif kind is Kind.NACK:
            if nonce == self.probe.nonce and nonce and self.probe.nacks < self.probe.asked:
                self.probe.nacks += 1
                self.last_echo_ns = now_ns
        elif kind is Kind.CHALLENGE:
            self.outbox.send(out, source, Kind.ECHO, nonce, self.outbox.news())
        elif kind is Kind.SYNC:
            self.repair.answer_sync(now_ns, source, packet, out)
        elif kind is Kind.RECORDS:
            self.repair.answer_records(now_ns, source, packet, out, eager=now_ns < self._eager_until_ns)
        elif kind is Kind.STALE:
            self._stale(now_ns, packet, out)

    def _unproven(self, now_ns: int, source: str, packet: Packet, peer: Peer | None, out: list[Effect]) -> None:
        sender = packet.sender
        kind = packet.kind
        outbox = self.outbox
        if sender.node_id == self.me.node_id:
            self._namesake(now_ns, source, packet, out)
            return
        if peer is not None and peer.proof_generation < sender.generation:
            # Made in a later run: what still comes of the earlier one is late, or recorded.
            peer.proof, peer.proof_generation = "", -1
        if peer is not None and peer.member.generation > sender.generation:
            if kind is Kind.STALE and self._is_answer(packet):
                self._stale(now_ns, packet, out)
            elif kind is _PING:
                self._tell_stale(source, packet, peer.member, out)
            return
        if kind is Kind.STALE:
            if self._is_answer(packet):
                self._stale(now_ns, packet, out)
        elif (kind is _ACK and self._is_answer(packet)) or (
            kind is Kind.ECHO and packet.nonce == self._challenges.of(sender, source)
        ):
            self._prove(now_ns, source, packet, out)
        elif kind is _PING:
            extra = self._challenges.of(sender, source)
            outbox.send(out, source, _ACK, packet.nonce, NO_NEWS, extra, most=packet.size)
        elif kind is Kind.CHALLENGE:
            outbox.send(out, source, Kind.ECHO, packet.nonce, most=packet.size)
        elif kind not in (_ACK, Kind.ECHO):
            # Room for the echo, which is as long as our packet but for the names.
            pad = max(0, base_bytes(sender) - outbox.base_bytes - 1)
            nonce = self._challenges.of(sender, source)
            outbox.send(out, source, Kind.CHALLENGE, nonce, NO_NEWS, pad or None, most=packet.size)

    def _namesake(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        """Another node has our id, or it is an old packet of ours: who has the better right is asked, the other told.

        Later generations go first, of equal ones the smaller address, as everywhere.
        """
        sender, me, kind = packet.sender, self.me, packet.kind
        if sender.generation > me.generation:
            theirs = True
        elif sender.generation < me.generation:
            theirs = False
        elif sender.address == me.address:
            return
        else:
            theirs = sender.address < me.address
        if theirs and self._is_answer(packet):
            self.outbox.questions.take(packet.nonce)
            self._hear(now_ns, Update(sender), out)
        elif kind is _PING and not theirs:
            self._tell_stale(source, packet, me, out)
        elif kind is _PING:
            # It may be recorded: only its answer to a question of ours counts.
            nonce = self.outbox.nonce()
            self.outbox.questions.put(nonce)
            self.outbox.send(out, source, _PING, nonce, NO_NEWS, self.outbox.told_bytes, most=packet.size)

    def _is_answer(self, packet: Packet) -> bool:
        nonce = packet.nonce
        return nonce != 0 and (nonce == self.probe.nonce or self.outbox.questions.waits(nonce))

    def _prove(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        sender = packet.sender
        peer = self._hear(now_ns, Update(sender), out, own=True)
        if peer is None or peer.member.generation != sender.generation:
            return
        # The same objects as in the record, to keep a member small.
        peer.proof = peer.member.address if peer.member.address == source else source
        peer.proof_generation = peer.member.generation
        out.append(Proved(peer.member))
        self._proven(now_ns, source, packet, peer, out)

    def _acked(self, now_ns: int, source: str, packet: Packet, peer: Peer, out: list[Effect]) -> None:
        nonce = packet.nonce
        outbox = self.outbox
        if nonce and nonce == self.probe.nonce:
            if self.probe.peer is not peer:
                return  # another node took its address over
            if not self.probe.repeated:
                # Of one that was asked twice, nobody can say which question this answers.
                peer.answered_in(now_ns - self.probe.began_ns)
            self.probe.answered(now_ns)
            self.plan()
        else:
            asked, relay = outbox.questions.take(nonce)
            if not asked:
                return
            if relay is not None:
                outbox.send(out, relay.address, Kind.RELAYED, relay.nonce)
        peer.echo_ns = max(peer.echo_ns, now_ns)
        self.last_echo_ns = max(self.last_echo_ns, now_ns)
        if packet.extra is None:
            peer.welcome = peer.proof_generation
        else:
            assert isinstance(packet.extra, int)
            # Its view has not taken our news: it could not know yet whether they are ours.
            outbox.send(out, source, Kind.ECHO, packet.extra, outbox.news_for(peer, packet.sender))

    def _stale(self, now_ns: int, packet: Packet, out: list[Effect]) -> None:
        extra = packet.extra
        assert isinstance(extra, tuple)
        self._hear(now_ns, Update(Member(self.me.node_id, extra[1], extra[0], 0, State(extra[2]))), out)

    def _tell_stale(self, source: str, packet: Packet, known: Member, out: list[Effect]) -> None:
        extra = (known.generation, known.address, int(known.state))
        self.outbox.send(out, source, Kind.STALE, packet.nonce, NO_NEWS, extra, most=packet.size)

    # --- what is due ---

    def ask_next(self) -> Peer | None:
        """Return who is to be asked at ``wake_at_ns``, if the next probe of the round is all there is to do; else None.

        It must be that time now, and there must be neither news nor a doubted member. The caller goes on with ``ask``,
        or with ``exchange`` when it knows what will come of it. ``wake`` does the same and more.
        """
        if self.probe.nonce or self.wake_at_ns >= self.other_due_ns:
            return None
        self.lag_ns = 0
        return self.view.next_to_probe()

    def ask(self, now_ns: int, peer: Peer) -> list[Effect]:
        """Ask whom ``ask_next`` has returned."""
        out: list[Effect] = []
        self.probe.begin(now_ns, peer, self.outbox.nonce())
        self.outbox.ping(out, peer, self.probe.nonce)
        self.plan()
        return out

    def _begin_probe(self, now_ns: int) -> Peer | None:
        doubted = self.view.take_doubted()
        peer = doubted or self.view.next_to_probe()
        if peer is None or self.outbox.me.gone:
            self.probe.rest(now_ns)
            return None
        self.probe.begin(now_ns, peer, self.outbox.nonce(), between=doubted is not None)
        return peer

    def _step_probe(self, now_ns: int, out: list[Effect]) -> None:
        probe = self.probe
        if probe.nonce and probe.peer is not None and now_ns < probe.stage_end_ns:
            self.outbox.ping(out, probe.peer, probe.nonce)
            probe.ask_again(now_ns)
            return
        if probe.stage is Stage.DIRECT:
            assert probe.peer is not None
            helpers = self.view.pick(self.tuning.helpers, but=probe.peer)
            target = (probe.peer.member.node_id, probe.peer.member.address)
            for helper in helpers:
                self.outbox.send(out, helper.member.address, Kind.PING_REQ, probe.nonce, NO_NEWS, target)
            # Once more: one lost datagram is no reason to doubt.
            self.outbox.ping(out, probe.peer, probe.nonce)
            probe.ask_others(now_ns, len(helpers))
            return
        if probe.stage is Stage.INDIRECT:
            assert probe.peer is not None
            probe.missed()
            if probe.peer.member.state is _ALIVE:
                self.health.failed(now_ns)
            if not self.health.frozen(now_ns) and not probe.outlived():
                self.opinions.suspect(now_ns, probe.peer, out)
            if now_ns < probe.due_ns and self.view.doubted is None:
                return
        peer = self._begin_probe(now_ns)
        if peer is not None:
            self.outbox.ping(out, peer, probe.nonce)

    def _gossip(self, now_ns: int, out: list[Effect]) -> None:
        outbox = self.outbox
        self._gossip_last_ns = now_ns
        for peer in self.view.pick(self.tuning.fanout):
            if peer.welcome != peer.member.generation:
                nonce = outbox.nonce()
                outbox.questions.put(nonce)
                outbox.ping(out, peer, nonce)
                continue
            news = outbox.news(peer.member.node_id)
            if news[0]:
                outbox.send(out, peer.member.address, _GOSSIP, 0, news)
        more = self.rumors.waiting and self.view.live
        self._gossip_due_ns = now_ns + self.tuning.gossip_interval_ns if more else NEVER_NS

    # --- what is heard ---

    def _hear_all(self, now_ns: int, updates: tuple[Update, ...], out: list[Effect]) -> None:
        peers = self._peers
        hear = self.opinions.hear
        for update in updates:
            member, accusers = update
            peer = peers.get(member.node_id)
            if peer is not None:
                held = peer.member
                # Most news were heard before.
                if held is member:
                    if not accusers or peer.suspicion is None or peer.suspicion.accusers is accusers:
                        continue
                elif member.order < held.order:
                    continue
            if hear(now_ns, update, out) is None:
                self._follow()

    def _hear(self, now_ns: int, update: Update, out: list[Effect], *, own: bool = False) -> Peer | None:
        peer = self.opinions.hear(now_ns, update, out, proven_self=own)
        if peer is None:
            self._follow()
        return peer

    def _follow(self) -> None:
        """Go by what may have been heard of this node itself."""
        self.outbox.follow()
        if self.opinions.namesake.due_ns < self.upkeep.due_ns:
            self.upkeep.due_ns = self.opinions.namesake.due_ns
            self.plan()

    def _set_me(self, me: Member, out: list[Effect]) -> None:
        self.opinions.renew(me, out)
        self.outbox.follow()

    def _was_late(self, now_ns: int) -> None:
        late_ns = now_ns - self.wake_at_ns
        self.lag_ns = late_ns
        self.health.worse()
        self.counts["late"] += 1
        if late_ns >= self.tuning.stall_ns:
            self.opinions.stood_still(late_ns)
            self.probe.abandon(now_ns)
            self.upkeep.forget_relays()
        self.other_due_ns = self.wake_at_ns = now_ns

    def plan(self) -> None:
        """Set ``wake_at_ns`` to when something is due next."""
        at = self.opinions.due_ns
        if self.upkeep.due_ns < at:
            at = self.upkeep.due_ns
        if self._gossip_due_ns < at:
            at = self._gossip_due_ns
        self.other_due_ns = at
        self.wake_at_ns = self.probe.due_ns if self.probe.due_ns < at else at
