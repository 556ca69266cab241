"""Events as bytes: they come back as they were, fit a datagram whoever passes them on, and nothing else is read."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.mesh.event import EVENT_BYTES_MAX, HOPS_MAX, Event
from relaymesh.core.mesh.member import NODE_ID_BYTES_MAX, Member, State
from relaymesh.core.mesh.packet import Kind, Packet, base_bytes, extra_bytes
from relaymesh.core.mesh.tick import Heartbeat
from relaymesh.wire.mesh_event import (
    HEARTBEAT_NODES_MAX,
    pack_event,
    pack_heartbeat,
    parse_event,
    parse_heartbeat,
)
from relaymesh.wire.mesh_key import KeyRing, MeshKey
from relaymesh.wire.mesh_packet import DATAGRAM_BYTES_MAX, Opener, Refusal, Sealer, key_id_of

RING = KeyRing(MeshKey.derive("correct horse", "blue"))
HERE = "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535"
LONGEST = "n" * NODE_ID_BYTES_MAX

node_ids = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=30)
events = st.builds(
    Event,
    node_ids,
    st.just(HERE) | st.just("10.0.0.1:17888"),
    st.integers(0, (1 << 63) - 1),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 255),
    st.binary(max_size=300),
)
beats = st.builds(
    Heartbeat,
    st.integers(0, 1 << 48),
    st.lists(st.tuples(node_ids, st.integers(0, 1 << 48)), max_size=HEARTBEAT_NODES_MAX).map(tuple),
    st.lists(st.binary(min_size=4, max_size=4), max_size=8).map(tuple),
)
junk = st.recursive(st.none() | st.integers() | st.binary() | st.text(), lambda inner: st.lists(inner, max_size=9))


def an_event_packet(sender: str, event: bytes, hops: int = 2) -> Packet:
    me = Member(sender, HERE, (1 << 63) - 1, 0, State.ALIVE)
    extra = (hops, event)
    return Packet(HERE, Kind.EVENT, me, 0, 0, (), extra, base_bytes(me) + extra_bytes(Kind.EVENT, extra))


@given(events)
@settings(max_examples=40, deadline=None)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert parse_event(pack_event(event)) == event


@given(beats)
@settings(max_examples=40, deadline=None)
def test_a_heartbeat_comes_back_as_it_was(beat: Heartbeat) -> None:
    assert parse_heartbeat(pack_heartbeat(beat)) == beat


@given(st.binary(max_size=300) | junk.map(lambda value: _packed(value)))
@settings(max_examples=80, deadline=None)
def test_whatever_else_there_is_is_a_value_error(data: bytes) -> None:
    for parse in (parse_event, parse_heartbeat):
        try:
            parse(data)
        except ValueError:
            continue


@given(beats, st.integers(0, 700))
@settings(max_examples=40, deadline=None)
def test_a_padded_heartbeat_is_read_like_one_without(beat: Heartbeat, least_bytes: int) -> None:
    packed = pack_heartbeat(beat, least_bytes)

    assert parse_heartbeat(packed) == beat
    assert len(packed) <= max(len(pack_heartbeat(beat)), least_bytes) + 3


def _packed(value: object) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except OverflowError:
        return b""
    return packed


def test_further_elements_of_a_later_version_are_ignored() -> None:
    event = Event("a", "10.0.0.1:1", 1, 2, 3, b"body")
    longer = msgpack.packb([*msgpack.unpackb(pack_event(event)), "more"])

    assert parse_event(longer) == event


@pytest.mark.parametrize(
    "fields",
    [
        ["", b"\n\0\0\1\0\1", 1, 1, 1, b""],
        ["a" * 129, b"\n\0\0\1\0\1", 1, 1, 1, b""],
        ["a\n", b"\n\0\0\1\0\1", 1, 1, 1, b""],
        ["a", b"\n\0\0\1", 1, 1, 1, b""],
        ["a", b"\n\0\0\1\0\1", -1, 1, 1, b""],
        ["a", b"\n\0\0\1\0\1", 1, 1, 256, b""],
        ["a", b"\n\0\0\1\0\1", 1, True, 1, b""],
        ["a", b"\n\0\0\1\0\1", 1, 1, 1, "text"],
        ["a", b"\n\0\0\1\0\1", 1, 1, 1],
    ],
)
def test_an_event_with_a_wrong_field_is_refused(fields: list[object]) -> None:
    with pytest.raises(ValueError):
        parse_event(msgpack.packb(fields))


def test_the_longest_event_fits_a_datagram_of_the_node_with_the_longest_name() -> None:
    packet = an_event_packet(LONGEST, b"e" * EVENT_BYTES_MAX, HOPS_MAX)

    data = Sealer(RING, "blue", LONGEST).seal(packet._replace(sender=_versioned(packet.sender)))

    assert len(data) <= DATAGRAM_BYTES_MAX
    assert isinstance(Opener(RING, "blue").open(0, HERE, data), Packet)


def _versioned(member: Member) -> Member:
    return Member(member.node_id, member.address, member.generation, (1 << 32) - 1, member.state)


@pytest.mark.parametrize("extra", [(0, b"e"), (HOPS_MAX + 1, b"e"), (1, b""), (1, b"e" * (EVENT_BYTES_MAX + 1))])
def test_an_event_without_hops_or_too_long_is_malformed(extra: tuple[int, bytes]) -> None:
    data = Sealer(RING, "blue", "a").seal(an_event_packet("a", extra[1], extra[0]))

    assert Opener(RING, "blue").open(0, HERE, data) is Refusal.MALFORMED


def test_an_event_is_not_judged_by_the_numbers_of_its_packet() -> None:
    """Two processes of one node may send at once, in one generation, each counting from 1."""
    one, other, opener = Sealer(RING, "blue", "a"), Sealer(RING, "blue", "a"), Opener(RING, "blue")

    opened = [opener.open(0, HERE, sealer.seal(an_event_packet("a", b"e"))) for sealer in (one, other)]

    assert all(isinstance(one, Packet) for one in opened)
    assert len(opener.windows) == 0


def test_a_datagram_names_the_key_that_it_is_sealed_with() -> None:
    assert key_id_of(Sealer(RING, "blue", "a").seal(an_event_packet("a", b"e"))) == RING.primary.key_id
