"""Packets of the mesh as bytes; docs/protocol.md is the specification.

    ┌──────┬───┬──────┬────────┬────────┬────────────┬──────────┬───────────────┬──────┐
    │ "RM" │ 1 │ kind │ key id │ sender │ generation │ sequence │ msgpack array │ code │
    │  2   │ 1 │  1   │   4    │   8    │     8      │    8     │      ...      │  16  │
    └──────┴───┴──────┴────────┴────────┴────────────┴──────────┴───────────────┴──────┘

A packet is refused as cheaply as possible: length and magic, rate of its source, key, code, window, and only then is
anything parsed.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
from collections import Counter
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import msgpack

from relaymesh.core.mesh.event import EVENT_BYTES_MAX, HOPS_MAX
from relaymesh.core.mesh.guard import Gate
from relaymesh.core.mesh.member import BUCKETS, NODE_ID_BYTES_MAX, Member, State
from relaymesh.core.mesh.opinion import GENERATION_MAX, VERSION_MAX
from relaymesh.core.mesh.packet import ACCUSERS_MAX, Extra, Kind, Packet, Update, untold_bytes
from relaymesh.core.mesh.window import Freshness, Windows
from relaymesh.wire.mesh_key import MAC_BYTES, KeyRing

__all__ = [
    "DATAGRAM_BYTES_MAX",
    "UPDATES_MAX",
    "Opener",
    "Refusal",
    "Sealer",
    "key_id_of",
    "pack_address",
    "sender_hash",
    "unpack_address",
]

DATAGRAM_BYTES_MAX: Final = 1_400
UPDATES_MAX: Final = 64
_MAGIC: Final = b"RM"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">2sBB4s8sQQ")
_BODY_FIELDS: Final = 8
_BODY_FIELDS_MAX: Final = 16
_PAD_BYTES_MAX: Final = 512
_KINDS: Final = {int(kind): kind for kind in Kind}
_STATES: Final = {int(state): state for state in State}


class Refusal(Enum):
    """Why a datagram changed nothing."""

    FOREIGN = "foreign"
    TOO_MANY = "too_many"
    UNKNOWN_KEY = "unknown_key"
    WRONG_CODE = "wrong_code"
    REPLAYED = "replayed"
    FORMER = "former"
    MALFORMED = "malformed"


class _MalformedError(ValueError):
    pass


def sender_hash(label: str, node_id: str) -> bytes:
    """Return the eight bytes by which a window is found before anything is parsed."""
    return hashlib.blake2b(f"{label}\0{node_id}".encode(), digest_size=8).digest()


@lru_cache(maxsize=8192)
def pack_address(address: str) -> bytes:
    """Return ``192.0.2.1:17888`` as 6 bytes, ``[2001:db8::1]:17888`` as 18.

    Raises ValueError for host names, and for IPv6 in another form than the canonical one.
    """
    host, _, port = address.rpartition(":")
    ip = ipaddress.ip_address(host.strip("[]"))
    number = int(port)
    packed = ip.packed + number.to_bytes(2, "big")
    if unpack_address(packed) != address:
        raise ValueError(f"{address!r} is not written as {unpack_address(packed)!r}")
    return packed


@lru_cache(maxsize=8192)
def unpack_address(packed: bytes) -> str:
    """Return what ``pack_address`` packed. Raises ValueError for what is none."""
    port = int.from_bytes(packed[-2:], "big")
    if len(packed) == 6 and port:
        return f"{ipaddress.IPv4Address(packed[:4])}:{port}"
    if len(packed) == 18 and port:
        return f"[{ipaddress.IPv6Address(packed[:16])}]:{port}"
    raise _MalformedError("address")


def key_id_of(data: bytes) -> bytes:
    """Return which key a datagram that was opened is sealed with."""
    return data[4:8]


class Sealer:
    """Makes the datagrams of one run of one node. sequence: of the last one; it never goes back in a generation."""

    def __init__(self, ring: KeyRing, label: str, node_id: str) -> None:
        self.ring = ring
        self.sequence = 0
        self._hash = sender_hash(label, node_id)

    def seal(self, packet: Packet) -> bytes:
        """Return a packet as a datagram. Raises AssertionError when it is too long, which only our own bug makes."""
        self.sequence += 1
        sender = packet.sender
        key = self.ring.primary
        head = _HEADER.pack(_MAGIC, _VERSION, packet.kind, key.key_id, self._hash, sender.generation, self.sequence)
        body = [
            sender.version,
            sender.node_id,
            pack_address(sender.address),
            int(sender.state),
            packet.nonce.to_bytes(8, "big"),
            None if untold_bytes(packet.kind, packet.digest) else packet.digest.to_bytes(8, "big"),
            [_pack_update(update) for update in packet.updates],
            _pack_extra(packet.kind, packet.extra),
        ]
        packed: bytes = msgpack.packb(body)
        data = head + packed
        data += key.code(data)
        assert len(data) <= DATAGRAM_BYTES_MAX
        return data


class Opener:
    """Takes datagrams in. counts: how many of them were refused, by reason."""

    def __init__(self, ring: KeyRing, label: str, to: str = "") -> None:
        self.ring = ring
        self.gate = Gate()
        self.windows = Windows()
        self.counts: Counter[Refusal] = Counter()
        self._label = label
        self._to = to

    def open(self, now_ns: int, source: str, data: bytes) -> Packet | Refusal:
        """Return the packet in a datagram, or why it is refused."""
        opened = self._open(now_ns, source, data)
        if isinstance(opened, Refusal):
            self.counts[opened] += 1
        return opened

    def proved(self, member: Member) -> None:
        """The core says that a member has proved itself (``Proved``): what was recorded of it is not fresh any more."""
        hashed = sender_hash(self._label, member.node_id)
        self.windows.close(int.from_bytes(hashed, "big"), member.generation)

    def _open(self, now_ns: int, source: str, data: bytes) -> Packet | Refusal:
        if not _HEADER.size + MAC_BYTES < len(data) <= DATAGRAM_BYTES_MAX or data[:2] != _MAGIC:
            return Refusal.FOREIGN
        if not self.gate.admit(now_ns, source):
            return Refusal.TOO_MANY
        _, version, kind_number, key_id, hashed, generation, sequence = _HEADER.unpack_from(data)
        kind = _KINDS.get(kind_number)
        if version != _VERSION or kind is None:
            return Refusal.FOREIGN
        key = self.ring.find(key_id)
        if key is None:
            return Refusal.UNKNOWN_KEY
        if not hmac.compare_digest(key.code(memoryview(data)[:-MAC_BYTES]), data[-MAC_BYTES:]):
            return Refusal.WRONG_CODE
        if (
            kind is not Kind.EVENT
        ):  # an event has an id of its own, by which it is taken once (relaymesh.core.mesh.event)
            freshness = self.windows.take(int.from_bytes(hashed, "big"), generation, sequence)
            if freshness is Freshness.REPLAYED:
                return Refusal.REPLAYED
            if freshness is Freshness.FORMER and kind is not Kind.PING:
                return Refusal.FORMER
        try:
            packet = _parse(self._to, kind, generation, data[_HEADER.size : -MAC_BYTES], len(data))
            if sender_hash(self._label, packet.sender.node_id) != hashed:
                return Refusal.MALFORMED
        except (ValueError, TypeError, msgpack.UnpackException):
            return Refusal.MALFORMED
        return packet


def _pack_update(update: Update) -> list[Any]:
    member = update.member
    accusers = b"".join(accuser.to_bytes(8, "big") for accuser in update.accusers) if update.accusers else None
    address = pack_address(member.address)
    return [member.node_id, address, member.generation, member.version, int(member.state), accusers]


def _pack_extra(kind: Kind, extra: Extra) -> Any:
    if extra is None:
        return None
    if isinstance(extra, int):
        return extra.to_bytes(8, "big") if kind is Kind.ACK else bytes(extra)
    if kind is Kind.PING_REQ:
        return [extra[0], pack_address(extra[1])]
    if kind is Kind.SYNC:
        return b"".join(part.to_bytes(8, "big") for part in extra)
    if kind is Kind.STALE:
        return [extra[0], pack_address(extra[1]), extra[2]]
    if kind is Kind.EVENT:
        return [extra[0], extra[1]]
    return [extra[0], int(extra[1])]


def _parse(to: str, kind: Kind, generation: int, body: bytes, size: int) -> Packet:
    # Nothing in a body is longer than these, so what is longer is not read at all.
    fields = msgpack.unpackb(
        body,
        use_list=False,
        strict_map_key=True,
        max_str_len=NODE_ID_BYTES_MAX,
        max_bin_len=EVENT_BYTES_MAX if kind is Kind.EVENT else _PAD_BYTES_MAX,
        max_array_len=max(UPDATES_MAX, _BODY_FIELDS_MAX),
        max_map_len=0,
        max_ext_len=0,
    )
    if type(fields) is not tuple or not _BODY_FIELDS <= len(fields) <= _BODY_FIELDS_MAX:
        raise _MalformedError("body")
    version, node_id, address, state, nonce, digest, updates, extra = fields[:_BODY_FIELDS]
    sender = _member(node_id, address, generation, version, state)
    if sender.state not in (State.ALIVE, State.LEFT) or type(updates) is not tuple:
        raise _MalformedError("sender")
    return Packet(
        to,
        kind,
        sender,
        _eight(nonce),
        0 if digest is None and untold_bytes(kind, 0) else _eight(digest),
        tuple(_update(update) for update in updates),
        _extra(kind, extra),
        size,
    )


def _member(node_id: Any, address: Any, generation: Any, version: Any, state: Any) -> Member:
    if type(node_id) is not str or not 0 < len(node_id.encode()) <= NODE_ID_BYTES_MAX or not node_id.isprintable():
        raise _MalformedError("node id")
    if type(generation) is not int or not 0 <= generation <= GENERATION_MAX:
        raise _MalformedError("generation")
    if type(version) is not int or not 0 <= version <= VERSION_MAX:
        raise _MalformedError("version")
    if type(state) is not int or state not in _STATES or type(address) is not bytes:
        raise _MalformedError("state")
    return Member(node_id, unpack_address(address), generation, version, _STATES[state])


def _update(fields: Any) -> Update:
    if type(fields) is not tuple or not 6 <= len(fields) <= _BODY_FIELDS_MAX:
        raise _MalformedError("update")
    member = _member(*fields[:5])
    accusers = fields[5]
    if accusers is None:
        return Update(member)
    if type(accusers) is not bytes or len(accusers) % 8 or not 0 < len(accusers) <= 8 * ACCUSERS_MAX:
        raise _MalformedError("accusers")
    return Update(member, tuple(int.from_bytes(accusers[at : at + 8], "big") for at in range(0, len(accusers), 8)))


def _eight(value: Any) -> int:
    if type(value) is not bytes or len(value) != 8:
        raise _MalformedError("eight bytes")
    return int.from_bytes(value, "big")


def _extra(kind: Kind, extra: Any) -> Extra:
    if kind is Kind.PING_REQ:
        if type(extra) is tuple and len(extra) == 2 and type(extra[1]) is bytes:
            target = _member(extra[0], extra[1], 0, 0, 0)
            return (target.node_id, target.address)
    elif kind is Kind.SYNC:
        if type(extra) is bytes and len(extra) == 8 * BUCKETS:
            return tuple(int.from_bytes(extra[at : at + 8], "big") for at in range(0, len(extra), 8))
    elif kind is Kind.RECORDS:
        if type(extra) is tuple and len(extra) == 2 and all(type(part) is int for part in extra):
            mask, more = extra
            if 0 <= mask < 1 << BUCKETS and more in (0, 1):
                return (mask, bool(more))
    elif kind is Kind.STALE:
        if type(extra) is tuple and len(extra) == 3:
            known = _member("-", extra[1], extra[0], 0, extra[2])
            return (known.generation, known.address, int(known.state))
    elif kind is Kind.ACK:
        return None if extra is None else _eight(extra)
    elif kind is Kind.EVENT:
        if type(extra) is tuple and len(extra) == 2 and type(extra[0]) is int and type(extra[1]) is bytes:
            hops_left, event = extra
            if 0 < hops_left <= HOPS_MAX and 0 < len(event) <= EVENT_BYTES_MAX:
                return (hops_left, event)
    elif extra is None:
        return None
    elif kind in (Kind.PING, Kind.CHALLENGE) and type(extra) is bytes and extra:
        return len(extra)
    raise _MalformedError("extra")
