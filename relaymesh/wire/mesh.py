"""Messages about the mesh: where others may be, what became of members, and what of it goes to the store.

socket, timer ──DatagramsArrived, GossipWake──▶ gossip ──MembersChanged, MeshCheckpoint──▶ membership
membership ──WriteMembers──▶ store ──what changed──▶ membership
gossip ──GossipUp──▶ membership ──WriteMembers, and its answer──▶ membership ──BeginGossip──▶ gossip
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from relaymesh.wire.codec import Message, message

__all__ = [
    "AddressHints",
    "BeginGossip",
    "DatagramsArrived",
    "GossipUp",
    "GossipWake",
    "HeardEvents",
    "KeyRow",
    "MemberRow",
    "MembersChanged",
    "MembersWritten",
    "MeshCheckpoint",
    "OwnGeneration",
    "SeedTick",
    "WriteMembers",
    "pack_marks",
    "unpack_marks",
]

_MARK: Final = struct.Struct(">QQQ")


class MemberRow(Message, frozen=True):
    """One member. state: what all agree on, shown: what counts for claims and people; numbers of ``State``."""

    node_id: str
    address: str
    generation: int
    version: int
    state: int
    shown: int


@message("gossip.hints")
class AddressHints(Message, frozen=True):
    """Addresses at which nodes may be found: the whole list of a source, in place of what it said before.

    source: number of a ``relaymesh.core.mesh.hint.Source``. addresses: as ``192.0.2.1:17888`` or
    ``[2001:db8::1]:17888``; host names are looked up by who tells them. keep_ms: for how long they are good; 0 until
    the source says otherwise.
    """

    source: int
    addresses: tuple[str, ...]
    keep_ms: int = 0


@message("gossip.arrived")
class DatagramsArrived(Message, frozen=True):
    """The socket has something to take."""


@message("gossip.wake")
class GossipWake(Message, frozen=True):
    """Something is due: a probe, a verdict, or another try to bind the socket."""


@message("gossip.begin")
class BeginGossip(Message, frozen=True):
    """Speak as this generation, which is on the disk by now.

    members: what was known before, as hearsay. marks: packets up to these were seen before (``unpack_marks``).
    """

    generation: int
    members: tuple[MemberRow, ...]
    marks: bytes


KeyRow = tuple[str, int, tuple[str, ...], tuple[tuple[str, int], ...]]
"""What was seen of a member's keys: node id; when it said what it holds, and what; key ids with their last use."""


@message("mesh.events")
class HeardEvents(Message, frozen=True):
    """What was heard by events. beats: node id and wall time in ms of processes that are known by heartbeats only."""

    beats: tuple[tuple[str, int], ...]
    keys: tuple[KeyRow, ...]


@message("gossip.seed_tick")
class SeedTick(Message, frozen=True):
    """Look at the file of seeds, and look host names up again."""


@message("mesh.up")
class GossipUp(Message, frozen=True):
    """The socket is bound, and others reach it at this address: a generation to speak as is asked for."""

    address: str


@message("mesh.own_generation")
class OwnGeneration(Message, frozen=True):
    """The store has given the node this generation, as the owner of steps."""

    number: int


@message("mesh.changed")
class MembersChanged(Message, frozen=True):
    """What became of members. held_back: recoveries that count only after their dwell time. pruned: ids forgotten."""

    changed: tuple[MemberRow, ...]
    held_back: tuple[MemberRow, ...] = ()
    pruned: tuple[str, ...] = ()


@message("mesh.checkpoint")
class MeshCheckpoint(Message, frozen=True):
    """What changes all the time, every 5 s: this node's own record, who was heard, and what a restart has to know.

    heard: ``(node id, round trip in µs or -1)``. merged: opinions of others that were taken over since the last one.
    """

    own: MemberRow
    heard: tuple[tuple[str, int], ...]
    marks: bytes
    merged: int


@message("mesh.written")
class MembersWritten(Message, frozen=True):
    """The store has answered."""


@message("store.members")
class WriteMembers(Message, frozen=True):
    """Write what a node knows of the mesh; answered with ``(node id, status before or "", status)`` of what changed.

    observer: the node that says so. own: its own record, and owner_generation that of its row; None when they are as
    they were. changed: members to be entered, with the state that counts. shown: ``(node id, state)`` of members whose
    row may say something else, to be put right; those of nodes of other roots count as heard now when they are alive
    and older than ``refresh_ms``. silent_ms: a node of this root whose heartbeat is older is not put right to ALIVE.
    heard: as in ``MeshCheckpoint``. counters: amounts to add, by name.
    beats, keys: as in ``HeardEvents``; patience: the settings that members are judged by, in the order of
    ``relaymesh.core.mesh.silence.Patience``. Nobody is put right to ALIVE before its dwell time is over.
    """

    observer: str
    own: MemberRow | None
    owner_generation: int
    changed: tuple[MemberRow, ...]
    shown: tuple[tuple[str, int], ...]
    heard: tuple[tuple[str, int], ...]
    refresh_ms: int
    silent_ms: int
    pruned: tuple[str, ...]
    marks: bytes
    counters: tuple[tuple[str, int], ...]
    beats: tuple[tuple[str, int], ...] = ()
    keys: tuple[KeyRow, ...] = ()
    patience: tuple[int, int, int, int] = (0, 0, 0, 0)


def pack_marks(marks: Iterable[tuple[int, int, int]]) -> bytes:
    """Return ``(sender, generation, highest sequence)`` of each sender as bytes, 24 for each."""
    return b"".join(_MARK.pack(*mark) for mark in marks)


def unpack_marks(data: bytes) -> list[tuple[int, int, int]]:
    """Return what ``pack_marks`` packed; bytes at the end that are no whole mark are left out."""
    return list(_MARK.iter_unpack(data[: len(data) // _MARK.size * _MARK.size]))
