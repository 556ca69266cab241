"""Membership of one node: SWIM with Lifeguard's refinements, digests, proofs and repair.

    receive(now, source, packet) ─┐
    wake(now), when wake_at_ns is due ─┼──▶ effects in the order in which they must happen
    start, leave, prune, seeds ───┘

    probe.py asks · opinion.py judges · rumor.py spreads · sync.py repairs · proof.py says who may be believed

There is one timer: after each call ``wake_at_ns`` says when ``wake`` is to be called. A call that is early, late or
doubled does no harm. A call that is very late tells the machine that its process stood still.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from relaymesh.core.mesh import sync
from relaymesh.core.mesh.effect import Effect
from relaymesh.core.mesh.health import Health
from relaymesh.core.mesh.member import Member, State, address_bytes
from relaymesh.core.mesh.opinion import Opinions
from relaymesh.core.mesh.packet import (
    Extra,
    Kind,
    Packet,
    Update,
    base_bytes,
    extra_bytes,
    make_packet,
    update_bytes,
)
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.probe import Probe, Stage
from relaymesh.core.mesh.proof import Challenges, Questions, Relay
from relaymesh.core.mesh.rumor import Rumors, transmit_limit
from relaymesh.core.mesh.tuning import NEVER_NS, SECOND, Tuning
from relaymesh.core.mesh.view import View

__all__ = ["JOIN_BYTES", "RECORDS_MAX", "SEEDS_MAX", "Membership"]

JOIN_BYTES: Final = 260
"""A first packet to an unknown node is padded to this, so that its answer is never the longer one."""
RECORDS_MAX: Final = 8
"""Datagrams that answer one request for records."""
SEEDS_MAX: Final = 256
_RELAYS_MAX: Final = 64
_RECORDS_PER_SECOND: Final = 64
_LEAVE_FANOUT: Final = 8


class Membership:
    """What one node knows and does about the others.

    me: its own record, with a generation that is higher than in every earlier run and kept on the disk.
    rng: for all choices and nonces. seeds: addresses to join through.
    """

    def __init__(self, me: Member, tuning: Tuning, rng: random.Random, now_ns: int, seeds: Iterable[str] = ()) -> None:
        self.tuning = tuning
        self._rng = rng
        self.view = View(me, rng)
        self.health = Health(tuning.suspect_after_ns)
        self.rumors = Rumors()
        self.opinions = Opinions(self.view, self.rumors, self.health, tuning)
        self.counts = self.opinions.counts
        self.seeds = tuple(seeds)[:SEEDS_MAX]
        self._seed_at = 0
        self.last_echo_ns = -1
        self.lag_ns = 0
        self._peers = self.view.peers
        self._me = me
        self._base = base_bytes(me)
        self._told_bytes = address_bytes(me.address) + 5
        self._room = tuning.datagram_bytes
        self._challenges = Challenges(rng)
        self._questions = Questions()
        self._relays: deque[tuple[int, int, str, int]] = deque()
        # Spread over the interval, so that nodes that start together do not ask together.
        self.probe = Probe(tuning, self.health, now_ns + int(rng.random() * tuning.probe_interval_ns))
        self._gossip_due_ns = NEVER_NS
        self._gossip_last_ns = now_ns - tuning.gossip_interval_ns
        self._join_due_ns = now_ns if self.seeds else NEVER_NS
        self._eager_until_ns = now_ns + tuning.eager_ns
        self._dead_probe_due_ns = now_ns + int(rng.random() * tuning.dead_probe_ns)
        self._prune_due_ns = now_ns + tuning.prune_interval_ns if tuning.prune_interval_ns else NEVER_NS
        self._slow_due_ns = now_ns
        self._differs = 0
        self._sync_after_ns = now_ns
        self._records_left = _RECORDS_PER_SECOND
        self._records_since_ns = now_ns
        self.wake_at_ns = now_ns
        self._late_at_ns = NEVER_NS
        self._plan()

    @property
    def me(self) -> Member:
        return self._me

    def shown(self, node_id: str) -> State | None:
        """Return the state of a member that counts for claims and for people; None when it is unknown."""
        if node_id == self._me.node_id:
            return self._me.state
        peer = self._peers.get(node_id)
        return None if peer is None else peer.shown

    def shown_alive(self) -> list[str]:
        """Return the ids of all nodes that count as ALIVE, this one included, sorted."""
        alive = [node_id for node_id, peer in self._peers.items() if peer.shown is State.ALIVE]
        if self._me.state is State.ALIVE and self.opinions.conflict is None:
            alive.append(self._me.node_id)
        return sorted(alive)

    # --- what happens ---

    def receive(self, now_ns: int, source: str, packet: Packet) -> list[Effect]:
        """Take a packet that is authenticated and no repetition. source: the address that it came from."""
        out: list[Effect] = []
        if now_ns >= self._late_at_ns:
            self._was_late(now_ns)
        sender = packet.sender
        peer = self._peers.get(sender.node_id)
        if peer is None or peer.proof != source or peer.proof_generation != sender.generation:
            self._unproven(now_ns, source, packet, peer, out)
        else:
            self._proven(now_ns, source, packet, peer, out)
        if self._gossip_due_ns == NEVER_NS and self.rumors:
            self._gossip_due_ns = max(
                now_ns + self.tuning.gossip_delay_ns, self._gossip_last_ns + self.tuning.gossip_interval_ns
            )
            self._plan()
        elif self.opinions.due_ns < self.wake_at_ns:
            self._plan()
        return out

    def wake(self, now_ns: int) -> list[Effect]:
        """Do what is due."""
        out: list[Effect] = []
        if now_ns >= self._late_at_ns:
            self._was_late(now_ns)
        else:
            self.lag_ns = 0
        if now_ns >= self.probe.due_ns:
            self._step_probe(now_ns, out)
        if now_ns >= self.opinions.due_ns:
            self.opinions.settle(now_ns, out)
        if now_ns >= self._slow_due_ns:
            self._slow(now_ns, out)
        if now_ns >= self._gossip_due_ns:
            self._gossip(now_ns, out)
        elif self._gossip_due_ns == NEVER_NS and self.rumors:
            self._gossip_due_ns = max(now_ns, self._gossip_last_ns + self.tuning.gossip_interval_ns)
        self._plan()
        return out

    def announce(self, now_ns: int, version: int) -> list[Effect]:
        """Raise this node's own version, because something about it has changed; all others will hear of it."""
        out: list[Effect] = []
        me = self._me
        self._set_me(Member(me.node_id, me.address, me.generation, max(version, me.version + 1), me.state), out)
        self._gossip_due_ns = min(self._gossip_due_ns, now_ns)
        self._plan()
        return out

    def restore(self, now_ns: int, members: Iterable[Member]) -> None:
        """Take in what was known before a restart. It is hearsay until each has proved itself again."""
        for member in members:
            known = member.node_id == self._me.node_id or member.node_id in self._peers
            if not known and not member.state.gone and len(self._peers) < self.tuning.members_max - 1:
                self.view.add(member if member.state is State.ALIVE else member.but(State.ALIVE), now_ns)
        self.rumors.limit = transmit_limit(self.view.live + 1)

    def leave(self, now_ns: int) -> list[Effect]:
        """Stop in order: tell some members at once; the caller sends what is returned and ends."""
        out: list[Effect] = []
        me = self._me
        self._set_me(Member(me.node_id, me.address, me.generation, me.version, State.LEFT), out)
        for peer in self.view.pick(_LEAVE_FANOUT):
            self._send(out, peer.member.address, Kind.GOSSIP, 0, self._news())
        self.probe.rest(NEVER_NS // 2)
        self._join_due_ns = self._gossip_due_ns = NEVER_NS
        self._plan()
        return out

    def prune(self, now_ns: int, older_than_ns: int, limit: int) -> tuple[int, list[Effect]]:
        """Forget members that have been gone for so long, by hand; return how many, and the effects."""
        out: list[Effect] = []
        return self.opinions.prune(now_ns, older_than_ns, limit, out), out

    def retune(self, tuning: Tuning) -> None:
        """Go by other settings from now on; what is running keeps the deadlines that it has."""
        self.tuning = self.opinions.tuning = self.probe.tuning = tuning
        self.health.patience_ns = tuning.suspect_after_ns
        self._room = tuning.datagram_bytes

    def seed(self, now_ns: int, seeds: Sequence[str]) -> None:
        """Join through these addresses from now on; they are asked while this node is alone."""
        self.seeds = tuple(seeds)[:SEEDS_MAX]
        if self.seeds and self.view.live == 0:
            self._eager_until_ns = now_ns + self.tuning.eager_ns
            self._slow_due_ns = self._join_due_ns = now_ns
            self._plan()

    # --- packets ---

    def _proven(self, now_ns: int, source: str, packet: Packet, peer: Peer, out: list[Effect]) -> None:
        peer.heard_ns = now_ns
        sender = packet.sender
        kind = packet.kind
        if peer.member is not sender and sender.order > peer.member.order:
            self._hear(now_ns, Update(sender), out, own=True)
        if packet.updates:
            for update in packet.updates:
                self._hear(now_ns, update, out)
        if kind is Kind.PING:
            updates, size = self._news_for(peer, sender)
            out.append(
                make_packet(
                    Packet,
                    (source, Kind.ACK, self._me, packet.nonce, self.view.digest, updates, None, self._base + size),
                )
            )
        elif kind is Kind.ACK:
            self._acked(now_ns, source, packet, peer, out)
        elif kind is Kind.PING_REQ:
            self._ask_for(now_ns, source, packet, out)
        elif kind is Kind.RELAYED:
            if packet.nonce == self.probe.nonce and packet.nonce:
                self.probe.answered()
                self.last_echo_ns = now_ns
                self._plan()
        elif kind is Kind.NACK:
            if packet.nonce == self.probe.nonce and packet.nonce and self.probe.nacks < self.probe.asked:
                self.probe.nacks += 1
                self.last_echo_ns = now_ns
        elif kind is Kind.CHALLENGE:
            self._send(out, source, Kind.ECHO, packet.nonce, self._news())
        elif kind is Kind.SYNC:
            self._answer_sync(now_ns, source, packet, out)
        elif kind is Kind.RECORDS:
            self._answer_records(now_ns, source, packet, out)
        elif kind is Kind.STALE:
            self._stale(packet, out)
        if packet.digest != self.view.digest and packet.digest:
            if kind is not Kind.GOSSIP:
                self._unequal(now_ns, source, out)
        elif packet.digest:
            self._differs = 0

    def _unproven(self, now_ns: int, source: str, packet: Packet, peer: Peer | None, out: list[Effect]) -> None:
        sender = packet.sender
        kind = packet.kind
        if sender.node_id == self._me.node_id:
            self._namesake(now_ns, source, packet, out)
            return
        if peer is not None and peer.member.generation > sender.generation:
            if kind is Kind.STALE and self._is_answer(packet):
                self._stale(packet, out)
            elif kind is Kind.PING:
                self._tell_stale(source, packet, peer.member, out)
            return
        if kind is Kind.STALE:
            if self._is_answer(packet):
                self._stale(packet, out)
        elif (kind is Kind.ACK and self._is_answer(packet)) or (
            kind is Kind.ECHO and packet.nonce == self._challenges.of(sender, source)
        ):
            self._prove(now_ns, source, packet, out)
        elif kind is Kind.PING:
            extra = self._challenges.of(sender, source)
            self._send(out, source, Kind.ACK, packet.nonce, ((), 0), extra, most=packet.size)
        elif kind is Kind.CHALLENGE:
            self._send(out, source, Kind.ECHO, packet.nonce, ((), 0), most=packet.size)
        elif kind not in (Kind.ACK, Kind.ECHO):
            # Room for the echo, which is as long as our packet but for the names.
            pad = max(0, base_bytes(sender) - self._base - 1)
            nonce = self._challenges.of(sender, source)
            self._send(out, source, Kind.CHALLENGE, nonce, ((), 0), pad or None, most=packet.size)

    def _namesake(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        """Another node has our id, or it is an old packet of ours: who has the better right is asked, the other told.

        Later generations go first, of equal ones the smaller address, as everywhere.
        """
        sender, me, kind = packet.sender, self._me, packet.kind
        if sender.generation > me.generation:
            theirs = True
        elif sender.generation < me.generation:
            theirs = False
        elif sender.address == me.address:
            return
        else:
            theirs = sender.address < me.address
        if theirs and self._is_answer(packet):
            self._hear(now_ns, Update(sender), out)
        elif kind is Kind.PING and not theirs:
            self._tell_stale(source, packet, me, out)
        elif kind is Kind.PING:
            # It may be recorded: only its answer to a question of ours counts.
            nonce = self._nonce()
            self._questions.put(nonce)
            self._send(out, source, Kind.PING, nonce, ((), 0), self._told_bytes, most=packet.size)

    def _is_answer(self, packet: Packet) -> bool:
        return packet.nonce != 0 and (packet.nonce == self.probe.nonce or self._questions.waits(packet.nonce))

    def _prove(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        sender = packet.sender
        peer = self._hear(now_ns, Update(sender), out, own=True)
        if peer is None or peer.member.generation != sender.generation:
            return
        # The same objects as in the record, to keep a member small.
        peer.proof = peer.member.address if peer.member.address == source else source
        peer.proof_generation = peer.member.generation
        self._proven(now_ns, source, packet, peer, out)

    def _acked(self, now_ns: int, source: str, packet: Packet, peer: Peer, out: list[Effect]) -> None:
        nonce = packet.nonce
        if nonce and nonce == self.probe.nonce:
            if self.probe.peer is not peer:
                return  # another node took its address over
            if self.probe.stage is Stage.DIRECT:
                # Later it was asked twice, and nobody can say which question this answers.
                peer.answered_in(now_ns - self.probe.began_ns)
            self.probe.answered()
            self._plan()
        else:
            asked, relay = self._questions.take(nonce)
            if not asked:
                return
            if relay is not None:
                self._send(out, relay.address, Kind.RELAYED, relay.nonce, ((), 0))
        peer.echo_ns = self.last_echo_ns = now_ns
        if packet.extra is None:
            peer.welcome = peer.proof_generation
        else:
            assert isinstance(packet.extra, int)
            # Its view has not taken our news: it could not know yet whether they are ours.
            self._send(out, source, Kind.ECHO, packet.extra, self._news_for(peer, packet.sender))

    def _ask_for(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        extra = packet.extra
        assert isinstance(extra, tuple)
        peer = self._peers.get(extra[0])
        if peer is None or len(self._relays) >= _RELAYS_MAX:
            return
        nonce = self._nonce()
        self._questions.put(nonce, Relay(source, packet.nonce))
        patience = self.tuning.probe_timeout_ns * 8 // 10
        self._relays.append((now_ns + patience, nonce, source, packet.nonce))
        self._slow_due_ns = min(self._slow_due_ns, now_ns + patience)
        self._ping(out, peer, nonce)
        self._plan()

    def _stale(self, packet: Packet, out: list[Effect]) -> None:
        extra = packet.extra
        assert isinstance(extra, tuple)
        self._hear(0, Update(Member(self._me.node_id, extra[1], extra[0], 0, State(extra[2]))), out)

    def _tell_stale(self, source: str, packet: Packet, known: Member, out: list[Effect]) -> None:
        extra = (known.generation, known.address, int(known.state))
        self._send(out, source, Kind.STALE, packet.nonce, ((), 0), extra, most=packet.size)

    # --- repair ---

    def _unequal(self, now_ns: int, source: str, out: list[Effect]) -> None:
        self._differs += 1
        eager = now_ns < self._eager_until_ns
        if (eager or self._differs >= 2) and now_ns >= self._sync_after_ns:
            self._sync_after_ns = now_ns + (self.tuning.join_sync_gap_ns if eager else self.tuning.sync_gap_ns)
            self._send(out, source, Kind.SYNC, 0, ((), 0), tuple(self.view.parts))

    def _answer_sync(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        assert isinstance(packet.extra, tuple)
        mask = sync.differing(self.view, packet.extra)
        if mask:
            self._send_records(now_ns, source, mask, mask, out)

    def _answer_records(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        assert isinstance(packet.extra, tuple)
        wanted, more = packet.extra
        if wanted:
            self._send_records(now_ns, source, wanted, 0, out)
        unequal = packet.digest != self.view.digest
        if unequal and not more and self._sync_after_ns <= now_ns < self._eager_until_ns:
            # The next round goes to somebody else, so that a seed does not carry all newcomers.
            self._sync_after_ns = now_ns + self.tuning.join_sync_gap_ns
            for peer in self.view.pick(1):
                self._send(out, peer.member.address, Kind.SYNC, 0, ((), 0), tuple(self.view.parts))

    def _send_records(self, now_ns: int, source: str, mask: int, wanted: int, out: list[Effect]) -> None:
        if now_ns - self._records_since_ns >= SECOND:
            self._records_since_ns = now_ns
            self._records_left = _RECORDS_PER_SECOND
        room = self.tuning.datagram_bytes - self._base - extra_bytes(Kind.RECORDS, (mask, False))
        chunks_max = min(RECORDS_MAX, self._records_left)
        chunks = sync.records(self.view, mask, room_bytes=room, sample=self.tuning.sample, chunks_max=chunks_max)
        self._records_left -= len(chunks)
        last = len(chunks) - 1
        for at, chunk in enumerate(chunks):
            self._send(out, source, Kind.RECORDS, 0, chunk, (wanted if at == 0 else 0, at < last))

    # --- what is due ---

    def _step_probe(self, now_ns: int, out: list[Effect]) -> None:
        probe = self.probe
        if probe.stage is Stage.DIRECT:
            assert probe.peer is not None
            helpers = self.view.pick(self.tuning.helpers, but=probe.peer)
            target = (probe.peer.member.node_id, probe.peer.member.address)
            for helper in helpers:
                self._send(out, helper.member.address, Kind.PING_REQ, probe.nonce, ((), 0), target)
            self._ping(out, probe.peer, probe.nonce)  # once more: one lost datagram is no reason to doubt
            probe.ask_others(len(helpers))
            return
        if probe.stage is Stage.INDIRECT:
            assert probe.peer is not None
            probe.missed()
            if probe.peer.member.state is State.ALIVE:
                self.health.failed(now_ns)
            if not self.health.frozen(now_ns):
                self.opinions.suspect(now_ns, probe.peer, out)
        peer = self.view.next_to_probe()
        if peer is None or self._me.state is State.LEFT:
            probe.rest(now_ns)
            return
        nonce = self._nonce()
        probe.begin(now_ns, peer, nonce)
        self._ping(out, peer, nonce)

    def _gossip(self, now_ns: int, out: list[Effect]) -> None:
        self._gossip_last_ns = now_ns
        for peer in self.view.pick(self.tuning.fanout):
            if peer.welcome != peer.member.generation:
                nonce = self._nonce()
                self._questions.put(nonce)
                self._ping(out, peer, nonce)
                continue
            updates, size = self._news(peer.member.node_id)
            if updates:
                self._send(out, peer.member.address, Kind.GOSSIP, 0, (updates, size))
        self._gossip_due_ns = now_ns + self.tuning.gossip_interval_ns if self.rumors and self.view.live else NEVER_NS

    def _slow(self, now_ns: int, out: list[Effect]) -> None:
        while self._relays and self._relays[0][0] <= now_ns:
            _, nonce, address, theirs = self._relays.popleft()
            if self._questions.waits(nonce):
                self._send(out, address, Kind.NACK, theirs, ((), 0))
        if now_ns >= self._join_due_ns:
            if self.view.live == 0 and self.seeds:
                self._join(out)
                self._join_due_ns = now_ns + self.tuning.join_retry_ns
            else:
                self._join_due_ns = NEVER_NS
        if now_ns >= self._dead_probe_due_ns:
            self._dead_probe_due_ns = now_ns + self.tuning.dead_probe_ns
            self._probe_dead(out)
        if now_ns >= self._prune_due_ns:
            self._prune_due_ns = now_ns + self.tuning.prune_interval_ns
            self.opinions.prune(now_ns, self.tuning.prune_older_than_ns, self.tuning.prune_limit, out)
        self._slow_due_ns = min(self._join_due_ns, self._dead_probe_due_ns, self._prune_due_ns)
        if self._relays:
            self._slow_due_ns = min(self._slow_due_ns, self._relays[0][0])

    def _join(self, out: list[Effect]) -> None:
        others = [seed for seed in self.seeds if seed != self._me.address]
        for _ in range(min(self.tuning.fanout, len(others))):
            self._ping_address(out, others.pop(int(self._rng.random() * len(others))))

    def _probe_dead(self, out: list[Effect]) -> None:
        if self._me.state is State.LEFT:
            return
        dead = self.view.pick_dead()
        if dead is not None:
            nonce = self._nonce()
            self._questions.put(nonce)
            self._ping(out, dead, nonce)
        # One seed after the other, when no live member is there: all seeds may have started anew and know nobody.
        if self.seeds:
            self._seed_at = (self._seed_at + 1) % len(self.seeds)
            seed = self.seeds[self._seed_at]
            if seed != self._me.address and not self.view.lives_at(seed):
                self._ping_address(out, seed)

    # --- sending ---

    def _ping(self, out: list[Effect], peer: Peer, nonce: int) -> None:
        if peer.welcome == peer.member.generation:
            # Room for being told that a later generation of us is known there.
            extra = self._told_bytes
            updates, size = self._news_for(peer, None)
        else:
            # It does not believe us yet; our news go with the echo. Its answer may carry a challenge, and must not be
            # longer than what it answers.
            extra = max(self._told_bytes, base_bytes(peer.member) + 8 - self._base)
            updates, size = (), 0
        to = peer.member.address
        size += self._base + extra + 1
        out.append(make_packet(Packet, (to, Kind.PING, self._me, nonce, self.view.digest, updates, extra, size)))

    def _ping_address(self, out: list[Effect], address: str) -> None:
        nonce = self._nonce()
        self._questions.put(nonce)
        self._send(out, address, Kind.PING, nonce, ((), 0), max(1, JOIN_BYTES - self._base))

    def _send(
        self,
        out: list[Effect],
        to: str,
        kind: Kind,
        nonce: int,
        news: tuple[tuple[Update, ...], int],
        extra: Extra = None,
        *,
        most: int = 0,
    ) -> None:
        """most: bytes that the packet may have at most, 0 for a whole datagram; a longer one is not sent."""
        size = self._base + news[1] + extra_bytes(kind, extra)
        if most and size > most:
            self.counts["unanswered"] += 1
            return
        assert size <= self.tuning.datagram_bytes
        # The sender of an answer to an unproven node does not tell it its view.
        digest = 0 if most else self.view.digest
        out.append(make_packet(Packet, (to, kind, self._me, nonce, digest, news[0], extra, size)))

    def _news(self, but: str = "", used: int = 64) -> tuple[tuple[Update, ...], int]:
        if not self.rumors:
            return (), 0
        return self.rumors.take(self._room - self._base - used, self.tuning.sample, but)

    def _news_for(self, peer: Peer, told: Member | None) -> tuple[tuple[Update, ...], int]:
        """Return what to tell a member, first of all what is held against it, so that it can answer.

        told: what it has just said about itself, None when it is asked unasked.
        """
        held = peer.member
        accused = held.state is not State.ALIVE if told is None else held is not told and held.order > told.order
        if not accused:
            return self._news(held.node_id) if self.rumors else ((), 0)
        accusation = self.opinions.accusation(peer)
        first = update_bytes(accusation)
        updates, size = self._news(held.node_id, 64 + first)
        updates = (accusation, *updates[: self.tuning.sample - 1])
        size = sum(map(update_bytes, updates))
        return updates, size + (2 if len(updates) > 15 else 0)

    def _hear(self, now_ns: int, update: Update, out: list[Effect], *, own: bool = False) -> Peer | None:
        peer = self.opinions.hear(now_ns, update, out, proven_self=own)
        if peer is None:
            self._follow_me()
        return peer

    def _set_me(self, me: Member, out: list[Effect]) -> None:
        self.opinions.renew(me, out)
        self._follow_me()

    def _follow_me(self) -> None:
        if self._me is not self.view.me:
            self._me = self.view.me
            self._base = base_bytes(self._me)

    def _nonce(self) -> int:
        return self._rng.getrandbits(64) or 1

    def _was_late(self, now_ns: int) -> None:
        late_ns = now_ns - self.wake_at_ns
        self.lag_ns = late_ns
        self.health.worse()
        self.counts["late"] += 1
        if late_ns >= self.tuning.stall_ns:
            self.opinions.stood_still(late_ns)
            self.probe.abandon(now_ns)
            self._relays.clear()
        self._late_at_ns = now_ns + self.tuning.late_ns
        self.wake_at_ns = now_ns

    def _plan(self) -> None:
        at = self.probe.due_ns
        if self.opinions.due_ns < at:
            at = self.opinions.due_ns
        if self._slow_due_ns < at:
            at = self._slow_due_ns
        if self._gossip_due_ns < at:
            at = self._gossip_due_ns
        self.wake_at_ns = at
        self._late_at_ns = at + self.tuning.late_ns
