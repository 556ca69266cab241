"""One UDP socket: addresses as packets write them, and a port that is taken is told."""

from __future__ import annotations

import time

import pytest

from relaymesh.net.datagram import DatagramSocket, GossipBindError, is_loopback_host


def test_a_datagram_arrives_with_the_address_that_it_came_from() -> None:
    with DatagramSocket("127.0.0.1", 0) as one, DatagramSocket("127.0.0.1", 0) as other:
        assert one.send(other.address, b"hello")

        assert other.receive(time.monotonic() + 10) == (one.address, b"hello")
        assert one.address == f"127.0.0.1:{one.port}"


def test_addresses_of_ipv6_stand_in_brackets() -> None:
    try:
        one, other = DatagramSocket("::1", 0), DatagramSocket("::1", 0)
    except GossipBindError:
        pytest.skip("this machine has no IPv6")
    with one, other:
        assert one.send(other.address, b"hello")

        assert other.receive(time.monotonic() + 10) == (f"[::1]:{one.port}", b"hello")


def test_a_port_that_is_taken_is_one_sentence_that_says_what_to_do() -> None:
    with DatagramSocket("127.0.0.1", 0) as one, pytest.raises(GossipBindError) as told:
        DatagramSocket("127.0.0.1", one.port)

    assert "the port is taken" in str(told.value) and "--bind-port" in str(told.value)


def test_an_address_of_another_machine_cannot_be_taken() -> None:
    with pytest.raises(GossipBindError):
        DatagramSocket("192.0.2.1", 17_888)


def test_what_cannot_be_sent_is_no_error() -> None:
    with DatagramSocket("127.0.0.1", 0) as one:
        assert not one.send("[2001:db8::1]:1", b"hello")
        assert not one.send(one.address, b"x" * 70_000)


def test_nothing_comes_after_the_time_is_over() -> None:
    with DatagramSocket("127.0.0.1", 0) as one:
        assert one.receive(time.monotonic() - 1) is None


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_it_is_known_which_addresses_only_this_machine_reaches(host: str, local: bool) -> None:
    assert is_loopback_host(host) is local
