"""Events of the mesh as bytes; docs/protocol.md is the specification.

event       [origin, address, generation, number, kind, body]      further elements are ignored
HEARTBEAT   [at_ms, [[node id, at_ms], …], [key id, …]]
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from relaymesh.core.mesh.event import Event
from relaymesh.core.mesh.member import NODE_ID_BYTES_MAX
from relaymesh.core.mesh.opinion import GENERATION_MAX
from relaymesh.core.mesh.tick import Heartbeat
from relaymesh.wire.mesh_key import KEYS_MAX
from relaymesh.wire.mesh_packet import DATAGRAM_BYTES_MAX, pack_address, unpack_address

__all__ = [
    "HEARTBEAT_NODES_MAX",
    "pack_event",
    "pack_heartbeat",
    "parse_event",
    "parse_heartbeat",
]

HEARTBEAT_NODES_MAX: Final = 64
_FIELDS_MAX: Final = 16
_NUMBER_MAX: Final = (1 << 64) - 1
_INSTANT_MS_MAX: Final = 1 << 48
_KEY_ID_BYTES: Final = 4
_PAD_HEAD_BYTES: Final = 3


def pack_event(event: Event) -> bytes:
    """Return an event as it travels."""
    fields = [event.origin, pack_address(event.address), event.generation, event.number, event.kind, event.body]
    packed: bytes = msgpack.packb(fields)
    return packed


def parse_event(data: bytes) -> Event:
    """Return the event in these bytes. Raises ValueError for what is none."""
    fields = _unpack(data, 6)
    origin, address, generation, number, kind, body = fields[:6]
    if type(address) is not bytes or type(body) is not bytes:
        raise ValueError("event")
    return Event(
        _node_id(origin),
        unpack_address(address),
        _number(generation, GENERATION_MAX),
        _number(number, _NUMBER_MAX),
        _number(kind, 255),
        body,
    )


def pack_heartbeat(beat: Heartbeat, least_bytes: int = 0) -> bytes:
    """Return the body of a heartbeat. least_bytes: it is padded to about so many, so that its answer may be as long."""
    fields: list[Any] = [beat.at_ms, [list(node) for node in beat.nodes], list(beat.keys)]
    packed: bytes = msgpack.packb(fields)
    if len(packed) < least_bytes:
        packed = msgpack.packb([*fields, bytes(max(0, least_bytes - len(packed) - _PAD_HEAD_BYTES))])
    return packed


def parse_heartbeat(data: bytes) -> Heartbeat:
    """Return the heartbeat in these bytes. Raises ValueError for what is none."""
    at_ms, nodes, keys = _unpack(data, 3)[:3]
    if type(nodes) is not tuple or type(keys) is not tuple:
        raise ValueError("heartbeat")
    if len(nodes) > HEARTBEAT_NODES_MAX or len(keys) > KEYS_MAX:
        raise ValueError("heartbeat")
    if any(type(key) is not bytes or len(key) != _KEY_ID_BYTES for key in keys):
        raise ValueError("key ids")
    return Heartbeat(_number(at_ms, _INSTANT_MS_MAX), tuple(_node(node) for node in nodes), keys)


def _unpack(data: bytes, least: int) -> tuple[Any, ...]:
    try:
        fields = msgpack.unpackb(
            data,
            use_list=False,
            strict_map_key=True,
            max_str_len=NODE_ID_BYTES_MAX,
            max_bin_len=DATAGRAM_BYTES_MAX,
            max_array_len=HEARTBEAT_NODES_MAX,
            max_map_len=0,
            max_ext_len=0,
        )
    except (TypeError, msgpack.UnpackException) as error:
        raise ValueError("no msgpack") from error
    if type(fields) is not tuple or not least <= len(fields) <= _FIELDS_MAX:
        raise ValueError("fields")
    return fields


def _node(node: Any) -> tuple[str, int]:
    if type(node) is not tuple or len(node) != 2:
        raise ValueError("node")
    return (_node_id(node[0]), _number(node[1], _INSTANT_MS_MAX))


def _node_id(value: Any) -> str:
    if type(value) is not str or not 0 < len(value.encode()) <= NODE_ID_BYTES_MAX or not value.isprintable():
        raise ValueError("node id")
    return value


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("number")
    return value
