"""One tick of a client, to which the test speaks as another node: what is counted, and what is on the disk after it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.core.mesh.event import Event, EventKind
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Kind, Packet, base_bytes, extra_bytes
from relaymesh.core.mesh.tick import Heartbeat
from relaymesh.gossip.option import TickKeywords, TickOptions
from relaymesh.gossip_view import GossipTickOutcome
from relaymesh.store.gossip_ring import cluster_label
from relaymesh.store.presence import BadNodeIdError
from relaymesh.wire.mesh_event import pack_event, pack_heartbeat, parse_event, parse_heartbeat
from relaymesh.wire.mesh_key import KeyRing, MeshKey
from relaymesh.wire.mesh_packet import Opener, Sealer

LABEL = cluster_label("default", "")
OPEN = KeyRing(MeshKey.derive("", LABEL))


class Other:
    """Another node, by hand."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(30)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.number = 0

    def packet(self, origin: str, at_ms: int, nodes: Sequence[tuple[str, int]] = (), hops: int = 1) -> bytes:
        self.number += 1
        body = pack_heartbeat(Heartbeat(at_ms, tuple(nodes)))
        event = pack_event(Event(origin, self.address, 0, self.number, int(EventKind.HEARTBEAT), body))
        me = Member(origin, self.address, 0, 0, State.ALIVE)
        extra = (hops, event)
        size = base_bytes(me) + extra_bytes(Kind.EVENT, extra)
        return Sealer(OPEN, LABEL, origin).seal(Packet(self.address, Kind.EVENT, me, 0, 0, (), extra, size))


@pytest.fixture
def other() -> Other:
    return Other()


def tick(root: Path, other: Other, *datagrams: bytes, window_ms: int = 400, **options: object) -> GossipTickOutcome:
    """Run one tick, and hand it these datagrams once it has spoken, so that it listens."""

    def speak() -> None:
        _, source = other.socket.recvfrom(2_000)
        for data in datagrams:
            other.socket.sendto(data, source)

    speaker = threading.Thread(target=speak)
    speaker.start()
    with Client(root) as client:
        outcome = client.gossip(
            "me",
            bind_port=free_port(),
            seeds=[other.address],
            window_ms=window_ms,
            **options,  # type: ignore[arg-type]
        )
    speaker.join()
    return outcome


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_heartbeats_in_a_packet_that_are_news_are_counted_with_it_and_kept(tmp_path: Path, other: Other) -> None:
    now_ms = time.time_ns() // 1_000_000
    nodes = [("b", now_ms - 5), ("c", now_ms - 7), ("me", now_ms), ("old", now_ms - 10**7)]

    outcome = tick(tmp_path / "root", other, other.packet("a", now_ms, nodes), other.packet("a", now_ms, nodes))

    assert (outcome.sent, outcome.received, outcome.invalid) == (1, 2, 0)
    assert outcome.accepted == 2 + 2  # two packets; b and c are news once
    with Client(tmp_path / "root") as client:
        rows = dict(client.query("SELECT node_id, last_heartbeat_ms FROM mesh_nodes WHERE node_id<>'me'", ()))
        stats = client.stats()
    assert rows == {"a": now_ms, "b": now_ms - 5, "c": now_ms - 7}
    assert (stats.anti_entropy_merge_total, stats.mesh_alive_nodes) == (2, 4)


def test_a_recovery_that_is_held_back_is_counted(tmp_path: Path, other: Other) -> None:
    root = tmp_path / "root"
    now_ms = time.time_ns() // 1_000_000
    with Client(root) as client:
        client.init()
        store = client._writable()
        with store.write():
            store.conn.execute(
                "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms)"
                " VALUES ('a','DEAD',?,?,?)",
                (now_ms - 70_000, now_ms - 1, now_ms - 1),
            )

    tick(root, other, other.packet("a", now_ms))

    with Client(root) as client:
        assert client.query("SELECT status FROM mesh_nodes WHERE node_id='a'", ())[0][0] == "DEAD"
        assert client.stats().membership_recovery_suppressed_total == 1


def test_datagrams_that_are_none_of_ours_are_invalid_and_an_echo_of_our_own_is_nothing(
    tmp_path: Path, other: Other
) -> None:
    outcome = tick(
        tmp_path / "root", other, b"", b"nonsense", b"x" * 1_900, other.packet("me", time.time_ns() // 1_000_000)
    )

    assert (outcome.received, outcome.invalid, outcome.accepted, outcome.deduplicated) == (4, 3, 0, 0)


def test_what_is_sent_is_our_heartbeat_with_those_that_we_know(tmp_path: Path, other: Other) -> None:
    root = tmp_path / "root"
    now_ms = time.time_ns() // 1_000_000
    tick(root, other, other.packet("a", now_ms, [("b", now_ms - 3)]))
    with Client(root) as client:
        client.gossip("me", bind_port=free_port(), seeds=[other.address], window_ms=100, ttl=5)

    data, source = other.socket.recvfrom(2_000)

    opened = Opener(OPEN, LABEL).open(0, f"127.0.0.1:{source[1]}", data)
    assert isinstance(opened, Packet) and isinstance(opened.extra, tuple)
    event = parse_event(opened.extra[1])
    assert (opened.extra[0], event.origin, event.address) == (5, "me", f"127.0.0.1:{source[1]}")
    beat = parse_heartbeat(event.body)
    assert sorted(beat.nodes) == [("a", now_ms), ("b", now_ms - 3)]
    assert beat.keys == () and abs(beat.at_ms - now_ms) < 120_000


@pytest.mark.parametrize("node_id", ["", "n" * 65, "two\nlines", "a b", "../x"])
def test_a_node_id_that_no_node_could_have_is_refused(tmp_path: Path, node_id: str) -> None:
    with Client(tmp_path / "root") as client, pytest.raises(BadNodeIdError, match="node id"):
        client.gossip(node_id)


def test_every_option_of_a_tick_can_be_given_as_a_keyword_and_no_other(tmp_path: Path) -> None:
    assert {"node_id", *TickKeywords.__annotations__} == {field.name for field in fields(TickOptions)}

    with Client(tmp_path / "root") as client, pytest.raises(TypeError, match="fan_out"):
        client.gossip("me", fan_out=3)  # type: ignore[call-arg]
