"""Announcements on the local network: no more than hints, of our cluster only, and never of a node nobody reaches."""

from __future__ import annotations

import ipaddress
import sys
import threading

import pytest

from relaymesh.net.zeroconf_discovery import (
    ADDRESSES_PER_NODE_MAX,
    FOUND_MAX,
    Discovery,
    addresses_of,
    cluster_hash,
    may_discover,
)


def packed(*texts: str) -> list[bytes]:
    return [ipaddress.ip_address(text).packed for text in texts]


class Heard:
    def __init__(self, label: str = "blue", host: str = "0.0.0.0", node_id: str = "a", port: int = 17_888) -> None:
        self.lists: list[tuple[str, ...]] = []
        self.sentences: list[str] = []
        self.changed = threading.Condition()
        self.discovery = Discovery(
            node_id=node_id,
            label=label,
            host=host,
            port=port,
            tell=self._tell,
            say=self.sentences.append,
            interfaces=["127.0.0.1"],
        )

    def _tell(self, addresses: tuple[str, ...]) -> None:
        with self.changed:
            self.lists.append(addresses)
            self.changed.notify_all()

    def wait_for(self, wanted: tuple[str, ...], seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: bool(self.lists) and self.lists[-1] == wanted, seconds)


def test_what_cannot_be_reached_is_no_address() -> None:
    assert addresses_of(5, packed("10.0.0.1", "0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.1.1", "fe80::1")) == (
        "10.0.0.1:5",
    )
    assert addresses_of(5, packed("2001:db8::1", "10.0.0.1", "10.0.0.1")) == ("[2001:db8::1]:5", "10.0.0.1:5")
    assert addresses_of(5, [b"", b"12345"]) == ()
    assert addresses_of(0, packed("10.0.0.1")) == addresses_of(None, packed("10.0.0.1")) == ()


def test_one_node_announces_only_so_many_addresses() -> None:
    assert len(addresses_of(5, packed(*(f"10.0.0.{number}" for number in range(99))))) == ADDRESSES_PER_NODE_MAX


def test_the_name_of_a_cluster_is_not_announced() -> None:
    assert cluster_hash("blue") != cluster_hash("green")
    assert "blue" not in cluster_hash("blue") and len(cluster_hash("blue")) == 16


@pytest.mark.parametrize(("host", "may"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("10.0.0.1", True)])
def test_a_node_that_only_its_own_machine_reaches_does_not_announce_itself(host: str, may: bool) -> None:
    assert may_discover(host) is may
    heard = Heard(host=host)
    if not may:
        heard.discovery.start()
        assert not heard.discovery._thread.is_alive()


def test_what_is_told_is_the_whole_list_of_all_others_within_bounds() -> None:
    heard = Heard()

    heard.discovery._put("b", ("10.0.0.2:1",))
    heard.discovery._put("c", ("10.0.0.3:1",))
    heard.discovery._put("c", ("10.0.0.3:1",))
    heard.discovery._put("b", ())
    for number in range(FOUND_MAX + 50):
        heard.discovery._put(f"n{number:03}", (f"10.1.{number // 250}.{number % 250}:1",))

    assert heard.lists[:3] == [("10.0.0.2:1",), ("10.0.0.2:1", "10.0.0.3:1"), ("10.0.0.3:1",)]
    assert max(map(len, heard.lists)) == FOUND_MAX


def test_nothing_is_told_after_the_end() -> None:
    heard = Heard()
    heard.discovery.close()

    heard.discovery._put("b", ("10.0.0.2:1",))

    assert heard.lists == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs multicast on the loopback interface")
def test_two_nodes_of_a_cluster_find_each_other_and_one_of_another_cluster_finds_nobody() -> None:
    """Over real sockets; 127.0.0.1 is never told, so the addresses announced are of another interface."""
    one = Heard(host="10.11.12.13", node_id="a", port=17_001)
    other = Heard(host="10.11.12.14", node_id="b", port=17_002)
    stranger = Heard(host="10.11.12.15", node_id="c", port=17_003, label="green")
    everybody = (one, other, stranger)
    try:
        for heard in everybody:
            heard.discovery.start()
        if not one.wait_for(("10.11.12.14:17002",), 20):
            assert any(heard.sentences for heard in everybody), "neither found nor told why not"
            pytest.skip(f"no multicast here: {one.sentences}")
        assert other.wait_for(("10.11.12.13:17001",), 20)
        assert stranger.lists == []
        other.discovery.close()
        assert one.wait_for((), 20)
    finally:
        for heard in everybody:
            heard.discovery.close()
