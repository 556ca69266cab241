"""The packets of one node: what goes into them beside what was asked for, and how long they get.

Every packet carries the node's own record, and what room is left is filled with news.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

from relaymesh.core.mesh.effect import Effect
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
    untold_bytes,
    update_bytes,
)
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.proof import Questions
from relaymesh.core.mesh.tuning import Tuning

__all__ = ["JOIN_BYTES", "NO_NEWS", "News", "Outbox"]

JOIN_BYTES: Final = 260
"""A first packet to an unknown node is padded to this, so that its answer is never the longer one."""

News = tuple[tuple[Update, ...], int]
"""Updates and their size in bytes."""
NO_NEWS: Final[News] = ((), 0)
_PING: Final = Kind.PING
_ACK: Final = Kind.ACK
_ALIVE: Final = State.ALIVE
_ROOM_FOR_EXTRA: Final = 64


class Outbox:
    """Makes the packets of one node.

    me: its own record, as all packets say it. base_bytes: size of a packet that says nothing else.
    told_bytes: room that a question leaves for being told of a later generation.
    welcome_bytes: of a PING to a member that believes us, without news.
    questions: nonces that wait for their echo, apart from the running probe.
    """

    __slots__ = (
        "_counts",
        "_opinions",
        "_rng",
        "_rumors",
        "_view",
        "base_bytes",
        "me",
        "questions",
        "told_bytes",
        "tuning",
        "welcome_bytes",
    )

    def __init__(self, opinions: Opinions, tuning: Tuning, rng: random.Random) -> None:
        self._opinions = opinions
        self._rumors = opinions.rumors
        self._view = opinions.view
        self._counts: Counter[str] = opinions.counts
        self.tuning = tuning
        self._rng = rng
        self.questions = Questions()
        self.me: Member = self._view.me
        # A STALE tells no digest, but an address and a generation.
        self.told_bytes = address_bytes(self.me.address) + 5 - untold_bytes(Kind.STALE, 0)
        self._measure()

    def follow(self) -> None:
        """Speak for the record that the view now has of this node."""
        if self.me is not self._view.me:
            self.me = self._view.me
            self._measure()

    def nonce(self) -> int:
        return self._rng.getrandbits(64) or 1

    def ping_bytes(self, peer: Peer) -> int:
        """Return the size of a PING to a member, without news."""
        return self.base_bytes + self._ping_extra(peer) + 1

    def ping(self, out: list[Effect], peer: Peer, nonce: int) -> None:
        """Ask a member. One that does not believe us yet gets our news with the echo."""
        welcome = peer.welcome == peer.member.generation
        updates, size = self.news_for(peer, None) if welcome else NO_NEWS
        extra = self._ping_extra(peer)
        size += self.base_bytes + extra + 1
        to = peer.member.address
        out.append(make_packet(Packet, (to, _PING, self.me, nonce, self._view.digest, updates, extra, size)))

    def ping_address(self, out: list[Effect], address: str) -> None:
        """Ask whoever is at an address."""
        nonce = self.nonce()
        self.questions.put(nonce)
        self.send(out, address, _PING, nonce, NO_NEWS, max(1, JOIN_BYTES - self.base_bytes))

    def ack(self, out: list[Effect], source: str, packet: Packet, peer: Peer) -> None:
        """Answer the PING of a proven member."""
        updates, size = self.news_for(peer, packet.sender)
        digest = self._view.digest
        size += self.base_bytes - (0 if digest else untold_bytes(_ACK, 0))
        out.append(make_packet(Packet, (source, _ACK, self.me, packet.nonce, digest, updates, None, size)))

    def send(
        self,
        out: list[Effect],
        to: str,
        kind: Kind,
        nonce: int,
        news: News = NO_NEWS,
        extra: Extra = None,
        *,
        most: int = 0,
    ) -> None:
        """most: bytes that the packet may have at most, 0 for a whole datagram; a longer one is not sent."""
        # The sender of an answer to an unproven node does not tell it its view.
        digest = 0 if most else self._view.digest
        size = self.base_bytes + news[1] + extra_bytes(kind, extra) - untold_bytes(kind, digest)
        if most and size > most:
            self._counts["unanswered"] += 1
            return
        assert size <= self.tuning.datagram_bytes
        out.append(make_packet(Packet, (to, kind, self.me, nonce, digest, news[0], extra, size)))

    def news(self, but: str = "", used: int = _ROOM_FOR_EXTRA) -> News:
        """Return what to pass on. but: not about this member. used: bytes of a packet that are spoken for."""
        if not self._rumors.waiting:
            return NO_NEWS
        return self._rumors.take(self.tuning.datagram_bytes - self.base_bytes - used, self.tuning.sample, but)

    def news_for(self, peer: Peer, told: Member | None) -> News:
        """Return what to tell a member, first of all what is held against it, so that it can answer.

        told: what it has just said about itself, None when it is asked unasked.
        """
        held = peer.member
        accused = held.state is not _ALIVE if told is None else held is not told and held.order > told.order
        if not accused:
            return self.news(held.node_id) if self._rumors.waiting else NO_NEWS
        accusation = self._opinions.accusation(peer)
        first = update_bytes(accusation)
        updates, _ = self.news(held.node_id, _ROOM_FOR_EXTRA + first)
        updates = (accusation, *updates[: self.tuning.sample - 1])
        size = sum(map(update_bytes, updates))
        return updates, size + (2 if len(updates) > 15 else 0)

    def _measure(self) -> None:
        self.base_bytes = base_bytes(self.me)
        self.welcome_bytes = self.base_bytes + self.told_bytes + 1

    def _ping_extra(self, peer: Peer) -> int:
        if peer.welcome == peer.member.generation:
            # Room for being told that a later generation of us is known there.
            return self.told_bytes
        # Its answer may carry a challenge, and must not be longer than what it answers.
        return max(self.told_bytes, base_bytes(peer.member) + 8 - untold_bytes(_ACK, 0) - self.base_bytes)
