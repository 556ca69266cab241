"""MembershipActor: what counts as true about members, and its way to the store, the log and the audit log.

    GossipActor ──MembersChanged──▶ table of what counts ──WriteMembers──▶ store ──what changed──▶ log, audit log
    GossipActor ──GossipUp──▶ the last generation is read, a later one written ──▶ BeginGossip

The state that counts follows what the mesh agrees on to the worse at once, to the better after a dwell time that grows
for a member that flaps (``relaymesh.core.mesh.peer``). All nodes of a root write into one table, and whose write
changes a word tells of it: once. Every 5 s rows that say something else are put right.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from typing import Any, Final, Protocol, assert_never

from actors.address import Address
from actors.base import Actor
from actors.reply import Reply
from actors.store_needs import NodeFacts
from relaymesh.core.mask import field_names
from relaymesh.core.mesh.hint import PER_SOURCE_MAX, Source
from relaymesh.core.mesh.member import State
from relaymesh.core.setting_table import Settings
from relaymesh.errors import RelayMeshError
from relaymesh.store.database import Database
from relaymesh.store.mesh import Known, addresses_here, load_known
from relaymesh.wire.audit import Record, body_of
from relaymesh.wire.codec import encode
from relaymesh.wire.mesh import (
    AddressHints,
    BeginGossip,
    GossipUp,
    HeardEvents,
    KeyRow,
    MemberRow,
    MembersChanged,
    MembersWritten,
    MeshCheckpoint,
    OwnGeneration,
    WriteMembers,
)

__all__ = ["SHOWN_MAX", "MembershipActor", "MembershipNeeds"]

log = logging.getLogger("relaymesh.mesh")

SHOWN_MAX: Final = 256
"""Rows that one write puts right; of more members, those behind them are looked at by the next writes, in turn."""
_REFRESH_MS: Final = 10_000
_HELD_MAX: Final = 256
_BEATS_MAX: Final = 4_096
_WORDS: Final = {
    State.ALIVE: "is alive",
    State.SUSPECT: "does not answer: it is suspected",
    State.DEAD: "is dead: nobody hears from it",
    State.LEFT: "has left",
}


class Desk(Protocol):
    """Where rows of the audit log are handed in."""

    def offer(self, bodies: list[str]) -> None: ...


class MembershipNeeds(Protocol):
    """What this actor asks of the rest of the node."""

    def now_ms(self) -> int: ...
    def current_generation(self) -> int: ...
    def settings(self) -> Settings: ...


class _Answer(Reply):
    """An answer of the store, of which an actor is told."""

    __slots__ = ("_told",)

    def __init__(self, told: Address) -> None:
        super().__init__()
        self._told = told

    def _settle(self, value: object, error: BaseException | None) -> bool:
        ours = super()._settle(value, error)
        if ours:
            self._told.tell(MembersWritten())
        return ours


class MembershipActor(Actor):
    """See the module."""

    takes = GossipUp | HeardEvents | OwnGeneration | MembersChanged | MeshCheckpoint | MembersWritten

    def __init__(
        self,
        facts: NodeFacts,
        needs: MembershipNeeds,
        store: Address,
        gossip: Address,
        desk: Desk,
    ) -> None:
        super().__init__()
        self._facts = facts
        self._needs = needs
        self._store = store
        self._gossip = gossip
        self._desk = desk
        self._masked = field_names(facts.masked_fields)
        self._members: dict[str, MemberRow] = {}
        self._turn = 0
        # What the store has not been asked to write yet, or could not.
        self._changed: dict[str, MemberRow] = {}
        self._held_back: list[MemberRow] = []
        self._pruned: dict[str, None] = {}
        self._heard: dict[str, int] = {}
        self._marks = b""
        self._counters: Counter[str] = Counter()
        self._beats: dict[str, int] = {}
        self._keys: tuple[KeyRow, ...] = ()
        # This node's own record, and what of it is on the disk, with the generation of its row of ``mesh_nodes``.
        self._own: MemberRow | None = None
        self._own_written: tuple[MemberRow | None, int] = (None, 0)
        self._order: tuple[WriteMembers, Reply] | None = None
        # The address of a GossipActor that waits, and the generation that it gets when that is on the disk.
        self._waits = ""
        self._begins: int | None = None

    def receive(self, message: Any) -> None:
        match message:
            case MembersChanged(changed, held_back, pruned):
                self._take(changed, held_back, pruned)
                self._flush()
            case MeshCheckpoint(own, heard, marks, merged):
                self._own = own
                self._heard.update(heard)
                self._marks = marks or self._marks
                self._counters["anti_entropy_merge"] += merged
                self._flush(checkpoint=True)
            case HeardEvents(beats, keys):
                # As many as one tick hears at most; a database that refuses for long must not make this grow.
                self._beats = dict([*(self._beats | dict(beats)).items()][-_BEATS_MAX:])
                self._keys = (*self._keys, *keys)[-_BEATS_MAX:]
                self._flush()
            case GossipUp(address):
                self._waits = address
                self._prepare()
            case OwnGeneration():
                if self._waits:
                    self._prepare()
                elif self._own is not None:
                    self._flush(checkpoint=True)
            case MembersWritten():
                self._written()
            case _:
                assert_never(message)

    def stopping(self) -> None:
        if self._order is not None and self._order[1].settled:
            self._written()
        self._order = None  # one that is on its way is written before what follows: it waits in the same mailbox
        self._flush(checkpoint=True)

    # A GossipActor starts.

    def _prepare(self) -> None:
        owner = self._needs.current_generation()
        if not owner or self._begins is not None:
            return
        known = self._load()
        if known is None:
            return
        generation = max(owner, known.generation + 1)
        self._begins = generation
        self._members.clear()
        self._own = MemberRow(self._facts.node_id, self._waits, generation, 0, int(State.ALIVE), int(State.ALIVE))
        self._order = None  # of a generation before
        self._flush(checkpoint=True)

    def _begin(self, generation: int) -> None:
        """Its generation is on the disk."""
        self._begins = None
        known = self._load()
        if known is None or not self._waits:
            return
        self._waits = ""
        self._members = {row.node_id: row for row in known.members}
        self._gossip.tell(AddressHints(int(Source.STORE), self._addresses))
        self._gossip.tell(BeginGossip(generation, known.members, known.marks))

    def _load(self) -> Known | None:
        facts, now_ms = self._facts, self._needs.now_ms()
        try:
            with (
                contextlib.closing(
                    Database.open(facts.root, namespace=facts.namespace, now_ms=now_ms, create=False)
                ) as store,
                store.reading(),
            ):
                self._addresses = addresses_here(
                    store.conn,
                    facts.root / "run",
                    facts.node_id,
                    here=facts.host,
                    now_ms=now_ms,
                    limit=PER_SOURCE_MAX,
                )
                return load_known(store.conn, facts.node_id)
        except RelayMeshError as error:
            # The GossipActor asks again.
            log.warning("what is known of the mesh could not be read (%s): %s", error.code, error)
            return None

    # What became of members.

    def _take(self, changed: tuple[MemberRow, ...], held_back: tuple[MemberRow, ...], pruned: tuple[str, ...]) -> None:
        for row in changed:
            self._members[row.node_id] = self._changed[row.node_id] = row
            self._pruned.pop(row.node_id, None)
        for node_id in pruned:
            self._members.pop(node_id, None)
            self._changed.pop(node_id, None)
            self._pruned[node_id] = None
        self._counters["membership_recovery_suppressed"] += len(held_back)
        for row in held_back[:_HELD_MAX]:
            details: dict[str, object] = dict.fromkeys(("previous_status", "current_status"), State(row.shown).name)
            self._record("membership.recovery.suppressed", row.node_id, "suppressed", details)

    def _flush(self, *, checkpoint: bool = False) -> None:
        """Ask the store to write what waits, unless it is at it: then its answer brings us here again."""
        if self._order is not None and self._order[1].settled:
            self._written()  # the word of it did not fit into our mailbox
        if self._order is not None:
            return
        own = (self._own, self._needs.current_generation())
        suspect_after_ms = self._needs.settings().suspect_after_ms
        order = WriteMembers(
            self._facts.node_id,
            own[0] if own != self._own_written else None,
            own[1],
            tuple(self._changed.values()),
            self._to_put_right() if checkpoint else (),
            tuple(self._heard.items()) if checkpoint else (),
            min(_REFRESH_MS, suspect_after_ms // 3),
            suspect_after_ms,
            tuple(self._pruned),
            self._marks if checkpoint else b"",
            tuple((name, amount) for name, amount in self._counters.items() if amount),
            tuple(self._beats.items()),
            self._keys,
            _patience(self._needs.settings()),
        )
        news = order.changed or order.shown or order.heard or order.pruned or order.beats or order.keys
        if not (order.own or news or order.marks):
            return  # alone: an idle node writes nothing
        self._changed, self._pruned = {}, {}
        self._beats, self._keys = {}, ()
        self._counters.clear()
        if checkpoint:
            self._heard, self._marks = {}, b""
        self._own_written = own
        reply = _Answer(self.address)
        self._order = (order, reply)
        self._store.ask_into(encode(order), reply)

    def _to_put_right(self) -> tuple[tuple[str, int], ...]:
        rows = list(self._members.values())
        if len(rows) > SHOWN_MAX:
            self._turn %= len(rows)
            rows = (rows + rows)[self._turn : self._turn + SHOWN_MAX]
            self._turn += SHOWN_MAX
        return tuple((row.node_id, row.shown) for row in rows)

    def _written(self) -> None:
        if self._order is None or not self._order[1].settled:
            return
        (order, reply), self._order = self._order, None
        try:
            turned = reply.wait(0)
        except RelayMeshError as error:
            log.warning("what became of members could not be written (%s): %s", error.code, error)
            self._keep(order)
            self._begins = None  # the GossipActor asks again
            return
        assert isinstance(turned, tuple)
        for node_id, before, status in turned:
            self._tell(node_id, before, State[status])
        if self._begins is not None:
            self._begin(self._begins)
        if self._changed:
            self._flush()

    def _keep(self, order: WriteMembers) -> None:
        """It goes with the next write, at the latest with the next checkpoint."""
        self._changed = {row.node_id: row for row in order.changed} | self._changed
        self._pruned = dict.fromkeys(order.pruned) | self._pruned
        self._counters.update(dict(order.counters))
        self._beats = dict(order.beats) | self._beats
        self._keys = (*order.keys, *self._keys)[-_BEATS_MAX:]
        self._own_written = (None, 0)

    def _tell(self, node_id: str, before: str, state: State) -> None:
        row = self._members.get(node_id)
        where = f" at {row.address}" if row is not None else ""
        if node_id == self._facts.node_id:
            return
        level = logging.WARNING if state is State.DEAD or before == State.DEAD.name else logging.INFO
        log.log(level, "member %s%s %s", node_id, where, _WORDS[state], extra={"node_id": node_id})
        details: dict[str, object] = {"previous_status": before or None, "current_status": state.name}
        if row is not None:
            details |= {"address": row.address, "generation": row.generation}
        self._record("membership.state", node_id, state.name.lower(), details)

    def _record(self, action: str, node_id: str, result: str, details: dict[str, object]) -> None:
        facts = self._facts
        details["observer"] = facts.node_id
        record = Record(action, "runtime", f"node/{node_id}", result, details)
        now_ms = self._needs.now_ms()
        self._desk.offer([body_of(record, namespace=facts.namespace, now_ms=now_ms, masked=self._masked)])


def _patience(settings: Settings) -> tuple[int, int, int, int]:
    return (
        settings.suspect_after_ms,
        settings.dead_after_ms,
        settings.suspect_recover_min_ms,
        settings.dead_recover_min_ms,
    )
