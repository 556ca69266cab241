"""Events of the mesh at one node that runs: those that pass through it, and its own. Without IO.

    EVENT from a member or a tick ──▶ taken once ──▶ heartbeats and keys, for the store
                                                └──▶ passed on to random members while it has hops left
    a tick, directly              ──▶ answered by our heartbeat, not longer than its packet
    our keys have changed         ──▶ our heartbeat to all, and again now and then while a change of keys goes on

The rules are ``relaymesh.core.mesh.event`` and ``tick``. What is heard here never goes into the machine of the node: a
process that lives for a moment must not be probed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from relaymesh.core.mesh.event import EVENT_BYTES_MAX, EventKind, Flood, Seen, hops, targets
from relaymesh.core.mesh.key_seen import KeysSeen
from relaymesh.core.mesh.member import State
from relaymesh.core.mesh.packet import Kind, Packet, base_bytes, extra_bytes
from relaymesh.core.mesh.silence import Patience
from relaymesh.core.mesh.swim import Membership
from relaymesh.core.mesh.tick import Heartbeat, Tick, sample
from relaymesh.core.setting_table import Settings
from relaymesh.wire.mesh import KeyRow
from relaymesh.wire.mesh_event import HEARTBEAT_NODES_MAX, pack_event, pack_heartbeat, parse_event, parse_heartbeat
from relaymesh.wire.mesh_key import KeyRing
from relaymesh.wire.mesh_packet import key_id_of

__all__ = ["AGAIN_MS_MIN", "EventPort", "News"]

AGAIN_MS_MIN: Final = 60_000
"""Between two heartbeats of our own while the ring has more than one key; longer in a larger mesh, by its size."""
_AGAIN_MS_PER_MEMBER: Final = 6_000
_BEATS_MAX: Final = 4_096
_USED_AGAIN_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class News:
    """What was heard since the last time. beats: node id and wall time. keys: who holds and uses which."""

    beats: tuple[tuple[str, int], ...]
    keys: tuple[KeyRow, ...]


class EventPort:
    """The events of one generation of a node. machine: whose members are told, and never changed here."""

    def __init__(self, machine: Membership, settings: Settings, ring: KeyRing, rng: random.Random, now_ms: int) -> None:
        self._machine = machine
        self._rng = rng
        self._ring: KeyRing | None = None
        self._settings = settings
        me = machine.me
        seen = Seen(settings.gossip_dedup_window_ms, settings.gossip_dedup_max_entries)
        # Ticks of this node make events too, and number them by the clock as well.
        self._flood = Flood(me.node_id, me.address, me.generation, seen, number=now_ms * 1_000_000)
        self._again_at_ms = now_ms
        self._beats: dict[str, int] = {}
        self._keys = KeysSeen()
        self._used: dict[str, bytes] = {}
        self._noted: dict[str, tuple[bytes, int]] = {}
        self.retune(settings)
        self._ring_now = ring

    def retune(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        self._settings = settings
        self._patience = Patience.of(settings)
        self._flood.seen.resize(settings.gossip_dedup_window_ms, settings.gossip_dedup_max_entries)

    def used(self, packet: Packet, data: bytes) -> None:
        """A node has sealed a packet with a key of ours; noted while there is more than one, and of members that have
        proved who they are.
        """
        if self._ring_now.secondaries:
            peer = self._machine.view.peers.get(packet.sender.node_id)
            if peer is not None and peer.proof_generation == packet.sender.generation:
                self._used[packet.sender.node_id] = key_id_of(data)

    def take(self, now_ms: int, source: str, packet: Packet, data: bytes) -> list[Packet]:
        """Take a packet of kind EVENT that was opened; return what to send because of it."""
        assert isinstance(packet.extra, tuple)
        hops_left, packed = packet.extra
        try:
            event = parse_event(packed)
            beat = parse_heartbeat(event.body) if event.kind == EventKind.HEARTBEAT else None
        except ValueError:
            self._machine.counts["bad_events"] += 1
            return []
        machine = self._machine
        fanout = machine.tuning.fanout
        known = [peer.member.address for peer in machine.view.pick(fanout + 2)]
        tick = Tick(self._flood, machine.me.node_id, known, fanout, self._patience, self._rng)
        on = tick.hear(now_ms, source, event, beat, hops_left)
        for said in tick.said:
            self._note(now_ms, said.origin, said.beat)
        if not tick.accepted:
            self._machine.counts["events_dropped"] += 1
            return []
        self._machine.counts["events"] += 1
        made = [self._packet(to, packed, on.hops_left) for to in on.to]
        if source == event.address and event.origin not in machine.view.peers:
            answer = self._answer(now_ms, source, len(data))
            if answer is not None:
                made.append(answer)
        return made

    def due(self, now_ms: int, ring: KeyRing) -> list[Packet]:
        """Return what is to be sent by itself. ring: the keys that hold now."""
        self._ring_now = ring
        if ring.primary.open:
            self._ring = ring
            return []
        changed = self._ring is not None and ring is not self._ring
        first = self._ring is None
        again = bool(ring.secondaries) and now_ms >= self._again_at_ms
        self._ring = ring
        if not (changed or again or (first and ring.secondaries)):
            return []
        machine = self._machine
        self._again_at_ms = now_ms + max(AGAIN_MS_MIN, _AGAIN_MS_PER_MEMBER * (machine.view.live + 1))
        own = machine.me.node_id
        held = [key.key_id.hex() for key in (ring.primary, *ring.secondaries)]
        self._keys.holds(own, held, now_ms)
        self._keys.sealed(own, held[0], now_ms)
        event = pack_event(self._flood.publish(EventKind.HEARTBEAT, pack_heartbeat(self._beat(now_ms, 0, 0))))
        fanout = machine.tuning.fanout
        to = targets(self._rng, [peer.member.address for peer in machine.view.pick(fanout)], fanout)
        left = hops(0, members=machine.view.live + 1, fanout=fanout)
        return [self._packet(address, event, left) for address in to]

    def news(self, now_ms: int) -> News | None:
        """Return what was heard since the last time, None for nothing."""
        self._note_uses(now_ms)
        if not self._beats and not len(self._keys):
            return None
        keys = tuple((name, at, holds, tuple(used.items())) for name, (at, holds, used) in self._keys.rows().items())
        found = News(tuple(self._beats.items()), keys)
        self._beats, self._keys = {}, KeysSeen()
        return found

    def _note_uses(self, now_ms: int) -> None:
        for node_id, key_id in self._used.items():
            noted, at_ms = self._noted.get(node_id, (b"", 0))
            if noted != key_id or now_ms - at_ms >= _USED_AGAIN_MS:
                self._noted[node_id] = (key_id, now_ms)
                self._keys.sealed(node_id, key_id.hex(), now_ms)
        self._used.clear()
        if len(self._noted) > 2 * _BEATS_MAX:
            self._noted.clear()

    def _note(self, now_ms: int, origin: str, beat: Heartbeat) -> None:
        # Members of the mesh are known better than by heartbeats of others, which the machine of this node judges.
        peers = self._machine.view.peers
        for node_id, at_ms in ((origin, beat.at_ms), *beat.nodes):
            room = node_id in self._beats or len(self._beats) < _BEATS_MAX
            if node_id not in peers and room:
                self._beats[node_id] = max(at_ms, self._beats.get(node_id, 0))
        if beat.keys:
            self._keys.holds(origin, [key.hex() for key in beat.keys], now_ms)

    def _answer(self, now_ms: int, to: str, most: int) -> Packet | None:
        """Return our heartbeat with as many members as fit; None when even without them it would be the longer one."""
        beat = self._beat(now_ms, 0, 0)
        event = self._flood.publish(EventKind.HEARTBEAT, pack_heartbeat(beat))
        bare = self._packet(to, pack_event(event), 1)
        room = min(most - bare.size - 4, EVENT_BYTES_MAX - len(pack_event(event)) - 4)
        if bare.size > most:
            self._machine.counts["unanswered"] += 1
            return None
        beat = self._beat(now_ms, min(self._settings.gossip_sync_sample_size, HEARTBEAT_NODES_MAX), room)
        return self._packet(to, pack_event(event._replace(body=pack_heartbeat(beat))), 1)

    def _beat(self, now_ms: int, most: int, room: int) -> Heartbeat:
        ring = self._ring_now
        keys = () if ring.primary.open else tuple(key.key_id for key in (ring.primary, *ring.secondaries))
        alive = [
            (peer.member.node_id, now_ms)
            for peer in self._machine.view.peers.values()
            if peer.member.state is State.ALIVE and peer.proof
        ]
        return Heartbeat(now_ms, sample(self._rng, alive, most, room) if most else (), keys)

    def _packet(self, to: str, event: bytes, hops_left: int) -> Packet:
        me = self._machine.me
        extra = (hops_left, event)
        size = base_bytes(me) + extra_bytes(Kind.EVENT, extra)
        return Packet(to, Kind.EVENT, me, 0, 0, (), extra, size)
