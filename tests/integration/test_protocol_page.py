"""A member written from docs/protocol.md alone, and a real node. Nothing of ours seals or opens its packets."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from tests.integration.harness import PATIENCE_S, Site
from tests.integration.test_mesh import free_port, gossip, wait_words

pytestmark = pytest.mark.slow

MakeSite = Callable[..., Site]
SECRET = "a secret of this test"
PING, ACK, GOSSIP, CHALLENGE, ECHO, SYNC = 1, 2, 5, 6, 7, 8
ALIVE, LEFT = 0, 3
NOTHING = bytes(8)


def blake2b(data: bytes, size: int, **more: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=size, **more).digest()


def packed(port: int) -> bytes:
    return ipaddress.ip_address("127.0.0.1").packed + struct.pack(">H", port)


class Stranger:
    """Another implementation. key: b"" without a secret."""

    def __init__(self, node_id: str, label: str, secret: str, to: int) -> None:
        self.node_id, self.label, self.to = node_id, label, to
        self.key, self.key_id = b"", bytes(4)
        if secret:
            salt = blake2b(label.encode(), 16)
            material = blake2b(secret.encode(), 32)
            self.key = blake2b(material, 32, salt=salt, person=b"relaymesh.gossip")
            self.key_id = blake2b(self.key, 4, person=b"relaymesh.keyid")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = packed(self.socket.getsockname()[1])
        self.sequence = 0
        self.sent_bytes = self.heard_bytes = 0

    def send(self, kind: int, nonce: bytes, *, updates: Any = (), extra: Any = None, state: int = ALIVE) -> bytes:
        self.sequence += 1
        sender = blake2b(f"{self.label}\0{self.node_id}".encode(), 8)
        data = b"RM" + bytes((1, kind)) + self.key_id + sender + struct.pack(">QQ", 1, self.sequence)
        data += msgpack.packb([0, self.node_id, self.address, state, nonce, NOTHING, [*updates], extra])
        data += blake2b(data, 16, key=self.key, person=b"relaymesh.gsp.1")
        self.socket.sendto(data, ("127.0.0.1", self.to))
        self.sent_bytes += len(data)
        return data

    def hear(self, kind: int, again: Callable[[], object]) -> list[Any]:
        """Return the body of the next packet of a kind; what asks is answered. again: asks; it may be lost."""
        until = time.monotonic() + PATIENCE_S
        self.socket.settimeout(0.5)
        again()
        while time.monotonic() < until:
            try:
                data = self.socket.recv(2_000)
            except TimeoutError:  # the node binds its port after it is up
                again()
                continue
            self.heard_bytes += len(data)
            assert data[:3] == b"RM\x01" and data[4:8] == self.key_id
            assert data[-16:] == blake2b(data[:-16], 16, key=self.key, person=b"relaymesh.gsp.1")
            body: list[Any] = msgpack.unpackb(data[32:-16])
            if data[3] == kind:
                return body
            if data[3] == PING:
                self.send(ACK, body[4])
            elif data[3] == CHALLENGE:
                self.send(ECHO, body[4])
        raise AssertionError(f"no packet of kind {kind}")

    def prove(self) -> None:
        """Do what the page says that makes a sender believed."""
        nonce = os.urandom(8)
        body = self.hear(ACK, lambda: self.send(PING, nonce, extra=bytes(200)))
        assert body[4] == nonce and body[5] is None and body[6] == [] and len(body[7]) == 8
        self.send(ECHO, body[7])


@pytest.fixture
def strangers() -> Any:
    made: list[Stranger] = []
    yield made
    for stranger in made:
        stranger.socket.close()


@pytest.mark.parametrize(
    ("settings", "label", "secret"),
    [
        ({"gossipSharedSecret": SECRET}, "namespace:default", SECRET),
        ({}, "root:{0.st_dev}:{0.st_ino}:default", ""),
    ],
)
def test_what_the_page_says_is_enough_to_become_a_member_and_to_leave(
    make_site: MakeSite, strangers: list[Stranger], settings: dict[str, str], label: str, secret: str
) -> None:
    port, site = free_port(), make_site("site", settings=settings)
    gossip(site, "a", port=port).wait_up()
    stranger = Stranger("stranger", label.format(site.root.stat()), secret, port)
    strangers.append(stranger)

    stranger.prove()
    wait_words(site, {"a": "ALIVE", "stranger": "ALIVE"})
    stranger.send(GOSSIP, NOTHING, updates=[["third", packed(9), 7, 0, ALIVE, None]])
    stranger.send(GOSSIP, NOTHING, state=LEFT)

    wait_words(site, {"a": "ALIVE", "stranger": "LEFT", "third": "DEAD"})


def test_who_has_not_proved_itself_changes_nothing_and_gets_no_more_bytes_than_it_sent(
    make_site: MakeSite, strangers: list[Stranger]
) -> None:
    port, site = free_port(), make_site("site", settings={"gossipSharedSecret": SECRET, "meshLabel": "lab"})
    gossip(site, "a", port=port).wait_up()
    for kind in range(1, 13):
        stranger = Stranger(f"unproven-{kind}", "label:lab", SECRET, port)
        strangers.append(stranger)
        extra = {3: ["a", packed(port)], 8: bytes(256), 9: [2**32 - 1, 0], 10: [9, packed(9), 2], 12: [3, b"x"]}
        ghosts = [[f"ghost-{kind}-{number}", packed(9), 1, 0, ALIVE, None] for number in range(kind)]
        stranger.send(kind, NOTHING, updates=ghosts, extra=extra.get(kind))
        stranger.send(kind, os.urandom(8), extra=extra.get(kind))

    last = Stranger("proven", "label:lab", SECRET, port)
    strangers.append(last)
    last.prove()  # what came before is done when this is

    wait_words(site, {"a": "ALIVE", "proven": "ALIVE"})
    for stranger in strangers[:-1]:
        stranger.socket.setblocking(False)
        while True:
            try:
                stranger.heard_bytes += len(stranger.socket.recv(2_000))
            except BlockingIOError:
                break
        assert stranger.heard_bytes <= stranger.sent_bytes, stranger.node_id
