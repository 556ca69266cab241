"""Gossip ticks: say that a node is here, listen for a while, and write down who was heard.

    heartbeat ─▶ send to fanout seeds ─▶ listen until the window closes, passing on ─▶ one commit ─▶ audit

The rules are ``relaymesh.core.mesh.tick`` and ``silence``. The socket stays bound from the first tick to the last, so
that what arrives between two of them is not lost.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from relaymesh.core.mesh.event import EVENT_BYTES_MAX, Event, EventKind, Flood, Seen, hops
from relaymesh.core.mesh.key_seen import KeysSeen
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Kind, Packet, base_bytes, extra_bytes
from relaymesh.core.mesh.seed import SEEDS_MAX
from relaymesh.core.mesh.silence import Patience
from relaymesh.core.mesh.tick import PACKETS_MAX, Heartbeat, Tick, sample
from relaymesh.errors import RelayMeshError
from relaymesh.gossip.seen_file import keep_seen, load_seen
from relaymesh.gossip.whom import Whom
from relaymesh.gossip_view import GossipSyncOutcome, GossipTickOutcome
from relaymesh.net.datagram import DatagramSocket, GossipBindError, is_loopback_host, knows_host
from relaymesh.store.counter import RECOVERY_SUPPRESSED, add_counter
from relaymesh.store.gossip_ring import RootRing, cluster_label, ring_of
from relaymesh.store.key_seen_row import save_keys_seen
from relaymesh.store.member import reconcile
from relaymesh.store.member_row import fresh_members, hear_members, member_count
from relaymesh.store.root import GOSSIP_KEYS
from relaymesh.wire.mesh_event import HEARTBEAT_NODES_MAX, pack_event, pack_heartbeat, parse_event, parse_heartbeat
from relaymesh.wire.mesh_packet import Opener, Refusal, Sealer, key_id_of

if TYPE_CHECKING:
    from relaymesh.audit import AuditTrail
    from relaymesh.core.setting_table import Settings
    from relaymesh.gossip.option import TickOptions
    from relaymesh.store.store import Store

__all__ = ["GossipInsecureError", "GossipRun"]

_RESOURCE: Final = "runtime/membership"
_SLICE_S: Final = 0.5
_BODY_BYTES_MIN: Final = 600
"""A node that runs answers with no more than it was sent: room for some twenty members."""
_SUMMED: Final = (
    "sent",
    "relayed",
    "received",
    "accepted",
    "deduplicated",
    "invalid",
    "suspected_nodes_marked",
    "dead_nodes_marked",
)


class GossipInsecureError(RelayMeshError):
    """Unsigned gossip was to be taken from other machines."""

    code = "gossip_insecure"

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return (
            f"{self.host} can be reached from other machines, and without a secret anybody there could mark members"
            " dead: set gossipSharedSecret on all nodes, or leave --bind at 127.0.0.1"
        )


class GossipRun:
    """Ticks of one node, from one socket.

    settings: of the moment, asked before each tick. over: whether to stop early.

    Raises:
        SeedFileError, GossipRingError, GossipInsecureError, GossipBindError: nothing was done.
    """

    def __init__(
        self,
        store: Store,
        options: TickOptions,
        *,
        settings: Callable[[], Settings],
        audit: AuditTrail,
        actor: str,
        now_ms: Callable[[], int],
        over: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._options = options
        self._settings = settings
        self._audit = audit
        self._actor = actor
        self._now_ms = now_ms
        self._say = options.say
        self._over = over
        self._rng = rng or random.Random(random.SystemRandom().getrandbits(128))
        self._whom = Whom(
            options.whom,
            None if options.seeds_file is None else Path(options.seeds_file),
            rng=self._rng,
            say=options.say,
        )
        at_start = settings()
        self._label = cluster_label(store.namespace, at_start.mesh_label)
        ring = self._ring(at_start)
        self._socket = DatagramSocket(options.bind, options.bind_port)
        self._whom.own = self._socket.address
        self._opener = Opener(ring.ring, self._label, self._socket.address)
        self._sealer = Sealer(ring.ring, self._label, options.node_id)
        self._flood: Flood | None = None
        self._told_differs = False
        self._unsent: set[str] = set()  # of which that was said

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.__exit__(kind, error, trace)
        self._whom.close()

    def sync(self, rounds: int, interval_ms: int) -> GossipSyncOutcome:
        """Do so many ticks with a pause between them."""
        ticks: list[GossipTickOutcome] = []
        for number in range(rounds):
            if number:
                time.sleep(max(0, interval_ms) / 1000)
            ticks.append(self.tick())
        with self._store.reading():
            members = member_count(self._store.conn)

        def total(field: str) -> int:
            return sum(int(getattr(tick, field)) for tick in ticks)

        sums = {field: total(field) for field in _SUMMED}
        outcome = GossipSyncOutcome(
            node_id=self._options.node_id,
            bind_port=self._socket.port,
            rounds_completed=len(ticks),
            member_count=members,
            ticks=tuple(ticks),
            **sums,
        )
        self._record(
            "membership.gossip.sync",
            {
                "node_id": outcome.node_id,
                "bind_port": outcome.bind_port,
                **sums,
                "rounds": outcome.rounds_completed,
                "member_count": members,
                "checked_at_ms": self._now_ms(),
            },
        )
        return outcome

    def tick(self) -> GossipTickOutcome:
        """Do one tick."""
        settings = self._settings()
        patience = Patience.of(settings)
        ring = self._ring(settings)
        self._opener.ring = self._sealer.ring = ring.ring
        if ring.differs and not self._told_differs:
            self._told_differs = True
            self._say(f"gossipSharedSecret and {GOSSIP_KEYS} name different keys: the setting decides which is used")
        fanout = self._options.fanout if self._options.fanout > 0 else settings.gossip_fanout
        ttl = self._options.ttl if self._options.ttl > 0 else settings.gossip_packet_ttl
        generation, known = self._heartbeat(patience)
        seen = Seen(settings.gossip_dedup_window_ms, settings.gossip_dedup_max_entries)
        load_seen(self._store.root, seen, self._now_ms())
        # The number of an event has to be new whichever process of this node makes it, and the clock is.
        number = max(time.time_ns(), self._flood.number if self._flood is not None else 0)
        flood = Flood(self._options.node_id, self._socket.address, generation, seen, number=number)
        self._flood = flood
        me = Member(self._options.node_id, self._socket.address, generation, 0, State.ALIVE)
        keys = KeysSeen()
        chosen = self._whom.choose(fanout)
        tick = Tick(flood, self._options.node_id, self._whom.known(), fanout, patience, self._rng)
        hops_left = hops(ttl, members=len(known) + 1, fanout=fanout)
        event = self._event(flood, me, known, ring, min(settings.gossip_sync_sample_size, HEARTBEAT_NODES_MAX))
        sent = 0
        for to in chosen:
            if to is not None and self._send(me, to, event, hops_left):
                sent += 1
                continue
            tick.invalid += 1
            if to is not None and to not in self._unsent:
                self._unsent = {*self._unsent, to} if len(self._unsent) < SEEDS_MAX else {to}
                self._say(f"the seed {to} is not told: nothing can be sent there from {self._socket.address}")
        relayed = self._listen(tick, me, keys)
        if ring.signing:
            own = [key.key_id.hex() for key in (ring.ring.primary, *ring.ring.secondaries)]
            keys.holds(me.node_id, own, self._now_ms())
            keys.sealed(me.node_id, own[0], self._now_ms())
        suspected, dead = self._write(tick, keys, patience)
        keep_seen(self._store.root, seen, self._now_ms())
        outcome = GossipTickOutcome(
            node_id=me.node_id,
            bind_port=self._socket.port,
            sent=sent,
            relayed=relayed,
            received=tick.received,
            accepted=tick.accepted,
            deduplicated=tick.deduplicated,
            invalid=tick.invalid,
            fanout=fanout,
            ttl=ttl,
            dedup_cache_size=len(seen),
            suspected_nodes_marked=suspected,
            dead_nodes_marked=dead,
        )
        self._record(
            "membership.gossip.tick",
            {
                "node_id": outcome.node_id,
                "bind_port": outcome.bind_port,
                **{field: getattr(outcome, field) for field in _SUMMED},
                "fanout": fanout,
                "ttl": ttl,
            },
        )
        return outcome

    # -- packets -----------------------------------------------------------------------------------------------------

    def _event(self, flood: Flood, me: Member, known: Sequence[tuple[str, int]], ring: RootRing, most: int) -> bytes:
        keys = ring.ring.primary, *ring.ring.secondaries
        beat = Heartbeat(self._now_ms(), (), tuple(key.key_id for key in keys) if ring.signing else ())
        event = flood.publish(EventKind.HEARTBEAT, pack_heartbeat(beat))
        # Heads that get longer with what is in them: of the body as bytes, and of the list of nodes.
        room = EVENT_BYTES_MAX - len(pack_event(event)) - 4
        nodes = sample(self._rng, known, most, room)
        body = pack_heartbeat(beat._replace(nodes=nodes), _BODY_BYTES_MIN)
        return pack_event(event._replace(body=body))

    def _send(self, me: Member, to: str, event: bytes, hops_left: int) -> bool:
        extra = (hops_left, event)
        size = base_bytes(me) + extra_bytes(Kind.EVENT, extra)
        return self._socket.send(to, self._sealer.seal(Packet(to, Kind.EVENT, me, 0, 0, (), extra, size)))

    def _listen(self, tick: Tick, me: Member, keys: KeysSeen) -> int:
        relayed = 0
        until = time.monotonic() + self._options.window_ms / 1000
        while tick.received < PACKETS_MAX and not self._over():
            got = self._socket.receive(min(until, time.monotonic() + _SLICE_S))
            if got is None:
                if time.monotonic() >= until:
                    break
                continue
            tick.received += 1
            relayed += self._take(tick, me, keys, *got)
        return relayed

    def _take(self, tick: Tick, me: Member, keys: KeysSeen, source: str, data: bytes) -> int:
        opened = self._opener.open(time.monotonic_ns(), source, data)
        if isinstance(opened, Refusal):
            tick.invalid += 1
            return 0
        if opened.kind is not Kind.EVENT:
            return 0  # what nodes that run tell each other
        assert isinstance(opened.extra, tuple)
        hops_left, packed = opened.extra
        try:
            event = parse_event(packed)
            beat = parse_heartbeat(event.body) if event.kind == EventKind.HEARTBEAT else None
        except ValueError:
            tick.invalid += 1
            return 0
        now_ms = self._now_ms()
        before = len(tick.said)
        on = tick.hear(now_ms, source, event, beat, hops_left)
        if len(tick.said) > before and not self._opener.ring.primary.open:
            self._note_keys(keys, opened.sender.node_id, key_id_of(data), event, beat, now_ms)
        return sum(self._send(me, to, packed, on.hops_left) for to in on.to)

    def _note_keys(
        self, keys: KeysSeen, sealer: str, key_id: bytes, event: Event, beat: Heartbeat | None, now_ms: int
    ) -> None:
        keys.sealed(sealer, key_id.hex(), now_ms)
        if beat is not None and beat.keys:
            keys.holds(event.origin, [key.hex() for key in beat.keys], now_ms)

    # -- store -------------------------------------------------------------------------------------------------------

    def _heartbeat(self, patience: Patience) -> tuple[int, Sequence[tuple[str, int]]]:
        """Write our heartbeat; return our generation, and whom we know."""
        node_id, conn, now_ms = self._options.node_id, self._store.conn, self._now_ms()
        with self._store.write():
            written = hear_members(conn, [(node_id, now_ms)], now_ms=now_ms, patience=patience)
            if written.suppressed:
                add_counter(conn, RECOVERY_SUPPRESSED, written.suppressed)
            (generation,) = conn.execute(
                "SELECT coalesce(max(generation), 0) FROM mesh_nodes WHERE node_id=?", (node_id,)
            ).fetchone()
            known = fresh_members(conn, now_ms=now_ms, patience=patience, but=node_id)
        return int(generation), known

    def _write(self, tick: Tick, keys: KeysSeen, patience: Patience) -> tuple[int, int]:
        """Write down what was heard, and who has been silent; return how many became SUSPECT and DEAD."""
        conn, merged, suppressed = self._store.conn, 0, 0
        with self._store.write():
            for said in tick.said:
                own = hear_members(conn, [(said.origin, said.beat.at_ms)], now_ms=said.now_ms, patience=patience)
                others = hear_members(conn, said.beat.nodes, now_ms=said.now_ms, patience=patience)
                merged += others.applied
                suppressed += own.suppressed + others.suppressed
            if merged:
                add_counter(conn, "anti_entropy_merge", merged)
            if suppressed:
                add_counter(conn, RECOVERY_SUPPRESSED, suppressed)
            marked = reconcile(conn, now_ms=self._now_ms(), patience=patience)
            if len(keys):
                save_keys_seen(conn, keys, now_ms=self._now_ms())
        tick.accepted += merged
        return len(marked.suspected), len(marked.dead)

    def _ring(self, settings: Settings) -> RootRing:
        found = ring_of(self._store.root, settings.gossip_shared_secret, self._label)
        if not (found.signing or settings.allow_insecure_gossip or is_loopback_host(self._options.bind)):
            if not knows_host(self._options.bind):
                raise GossipBindError(f"{self._options.bind}:{self._options.bind_port}", "no address is known of it")
            raise GossipInsecureError(self._options.bind)
        return found

    def _record(self, action: str, details: dict[str, object]) -> None:
        self._audit.record(action, actor=self._actor, resource=_RESOURCE, result="ok", details=details)
