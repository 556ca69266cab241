"""The table of members with its digests, and the graveyard of those that were pruned.

    digest = sum of the marks of all members that are not gone, mod 2^64; the same for each of 32 parts, cut by id

Both are kept up to date with each change, so comparing two views of any size costs eight bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from relaymesh.core.mesh.member import BUCKETS, MARK_MASK, Member, State, id_hash
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.tuning import SECOND

__all__ = ["GRAVES_MAX", "GRAVE_AGE_NS", "SECOND_OPINIONS", "View"]

GRAVES_MAX: Final = 65_536
SECOND_OPINIONS: Final = 6
_DEAD: Final = State.DEAD
_LEFT: Final = State.LEFT
GRAVE_AGE_NS: Final = 30 * 86_400 * SECOND


class View:
    """All other members that this node knows.

    digest: of this node and the others. parts: the same, cut into 32. live: others that are not gone.
    dead: those that are DEAD, in the order in which they died. doubted: a suspect that is to be asked beside the round.
    """

    __slots__ = (
        "_graves",
        "_leaving",
        "_me",
        "_ring",
        "_ring_at",
        "_rng",
        "dead",
        "digest",
        "doubted",
        "live",
        "parts",
        "peers",
    )

    def __init__(self, me: Member, rng: random.Random) -> None:
        self._rng = rng
        self.peers: dict[str, Peer] = {}
        self.dead: dict[str, Peer] = {}
        self.live = 0
        self.digest = 0
        self.parts = [0] * BUCKETS
        self._me = me
        self._count(id_hash(me.node_id) % BUCKETS, 0, me.mark)
        self._ring: list[Peer] = []
        self._ring_at = 0
        self._leaving: dict[str, Peer] = {}  # gone, but still in the ring
        self.doubted: Peer | None = None
        self._graves: dict[int, tuple[int, int]] = {}  # id hash: generation, when

    @property
    def me(self) -> Member:
        return self._me

    @me.setter
    def me(self, member: Member) -> None:
        self._count(id_hash(member.node_id) % BUCKETS, self._me.mark, member.mark)
        self._me = member

    @property
    def graves(self) -> int:
        """How many pruned members are remembered."""
        return len(self._graves)

    def add(self, member: Member, now_ns: int) -> Peer:
        """Take an unknown member in; it comes up for probing at a random time of the round."""
        peer = Peer(member, now_ns)
        self.peers[member.node_id] = peer
        self._count(peer.bucket, 0, member.mark)
        if member.gone:
            if member.state is _DEAD:
                self.dead[member.node_id] = peer
        else:
            self.live += 1
            self._insert(peer)
        return peer

    def replace(self, peer: Peer, member: Member) -> bool:
        """Put a newer opinion in the place of the one held; return whether more or fewer are live now."""
        old = peer.member
        peer.member = member
        part = peer.bucket
        change = member.mark - old.mark
        self.digest = (self.digest + change) & MARK_MASK
        self.parts[part] = (self.parts[part] + change) & MARK_MASK
        was_gone, is_gone = old.gone, member.gone
        if not was_gone and not is_gone:
            return False
        if member.state is _DEAD:
            self.dead[member.node_id] = peer
        else:
            self.dead.pop(member.node_id, None)
        if was_gone is is_gone:
            return False
        if is_gone:
            self.live -= 1
            self._leaving[member.node_id] = peer
        else:
            self.live += 1
            if self._leaving.pop(member.node_id, None) is None:
                self._insert(peer)
        return True

    def next_to_probe(self) -> Peer | None:
        """Return the next of a shuffled round of all that are not gone."""
        ring, at = self._ring, self._ring_at
        if at < len(ring) and not self._leaving:
            self._ring_at = at + 1
            return ring[at]
        while True:
            if at >= len(ring):
                if self._leaving:
                    self._ring = ring = [peer for peer in ring if not peer.member.gone]
                    self._leaving.clear()
                self._ring_at = at = 0
                if not ring:
                    return None
                self._shuffle()
            peer = ring[at]
            self._ring_at = at = at + 1
            state = peer.member.state
            if state is not _DEAD and state is not _LEFT:
                return peer

    def ask_soon(self, peer: Peer) -> None:
        """Let some nodes of the mesh ask a new suspect at once: to confirm the doubt, or to let it hear of it."""
        if self._rng.random() * self.live < SECOND_OPINIONS:
            self.doubted = peer

    def take_doubted(self) -> Peer | None:
        """Return the suspect to ask beside the round, once."""
        doubted, self.doubted = self.doubted, None
        return None if doubted is None or doubted.member.gone else doubted

    def pick(self, count: int, but: Peer | None = None) -> list[Peer]:
        """Return up to so many random members that are not gone."""
        ring = self._ring
        size = len(ring)
        if self.live <= count + (but is not None):
            return [peer for peer in ring if not peer.member.gone and peer is not but][:count]
        picked: list[Peer] = []
        draw = self._rng.random
        for _ in range(4 * count + 8):  # enough unless nearly all of the round have died
            peer = ring[int(draw() * size)]
            state = peer.member.state
            if state is not _DEAD and state is not _LEFT and peer is not but and peer not in picked:
                picked.append(peer)
                if len(picked) == count:
                    break
        return picked

    def pick_dead(self) -> Peer | None:
        if not self.dead:
            return None
        at = int(self._rng.random() * len(self.dead))
        return next(peer for index, peer in enumerate(self.dead.values()) if index == at)

    def at_address(self, address: str) -> Peer | None:
        """Return a member that is not gone and has this address; looks at all."""
        for peer in self.peers.values():
            if peer.member.address == address and not peer.member.gone:
                return peer
        return None

    def in_parts(self, mask: int) -> Iterator[Peer]:
        """Yield the members of the parts whose bit is set, those that are gone included."""
        if mask == (1 << BUCKETS) - 1:
            yield from self.peers.values()
            return
        for peer in self.peers.values():
            if mask >> peer.bucket & 1:
                yield peer

    def prune(self, now_ns: int, older_than_ns: int, limit: int) -> list[Member]:
        """Forget members that have been gone for so long, oldest first; remember only not to take them in again."""
        gone = sorted(
            (peer.shown_since_ns, node_id)
            for node_id, peer in self.peers.items()
            if peer.member.gone and now_ns - peer.shown_since_ns >= older_than_ns
        )[:limit]
        pruned = []
        for _, node_id in gone:
            peer = self.peers.pop(node_id)
            self.dead.pop(node_id, None)
            self._leaving.pop(node_id, None)
            self._bury(peer.member, now_ns)
            pruned.append(peer.member)
        if pruned:
            dropped = {member.node_id for member in pruned}  # only asked, never walked
            before = self._ring[: self._ring_at]
            after = [peer for peer in self._ring[self._ring_at :] if peer.member.node_id not in dropped]
            before = [peer for peer in before if peer.member.node_id not in dropped]
            self._ring, self._ring_at = before + after, len(before)
        return pruned

    def buried(self, member: Member) -> bool:
        """Whether this generation was pruned: hearsay does not bring it back."""
        grave = self._graves.get(id_hash(member.node_id))
        return grave is not None and member.generation <= grave[0]

    def dig_up(self, member: Member) -> None:
        """The member itself has proved that it is there."""
        self._graves.pop(id_hash(member.node_id), None)

    def _bury(self, member: Member, now_ns: int) -> None:
        for old, (_, when) in list(self._graves.items()):
            if now_ns - when < GRAVE_AGE_NS and len(self._graves) < GRAVES_MAX:
                break  # in the order of burial: the rest is younger
            del self._graves[old]
        key = id_hash(member.node_id)
        self._graves.pop(key, None)
        self._graves[key] = (member.generation, now_ns)

    def _count(self, part: int, old: int, new: int) -> None:
        change = new - old
        self.digest = (self.digest + change) & MARK_MASK
        self.parts[part] = (self.parts[part] + change) & MARK_MASK

    def _insert(self, peer: Peer) -> None:
        at = self._ring_at + int(self._rng.random() * (len(self._ring) - self._ring_at + 1))
        self._ring.insert(at, peer)

    def _shuffle(self) -> None:
        ring, draw = self._ring, self._rng.random
        for at in range(len(ring) - 1, 0, -1):
            other = int(draw() * (at + 1))
            ring[at], ring[other] = ring[other], ring[at]
