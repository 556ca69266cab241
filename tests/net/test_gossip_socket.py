"""The UDP endpoint of the mesh, over loopback."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from relaymesh.core.mesh.guard import ADDRESS_BURST
from relaymesh.net.gossip_socket import (
    BYTES_MAX,
    PORTS,
    QUEUE_MAX,
    GossipSocket,
    advertised_address,
    parse_advertise,
)


class End:
    """A socket and its arrivals; the clock stands still, so no bucket fills up again."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.takes = True
        self.told = 0
        self.socket = GossipSocket(host, port, self._arrival, clock=lambda: 0)

    def _arrival(self) -> bool:
        self.told += 1
        return self.takes

    def wait(self, word: str, count: int) -> None:
        """Wait until so many were counted, or ``told`` of."""
        never = threading.Event()
        for _ in range(10_000):
            if (self.told if word == "told" else self.socket.counts[word]) >= count:
                return
            never.wait(0.001)
        raise AssertionError(f"{word} is {self.socket.counts[word]}, not {count}")


@pytest.fixture
def ends() -> Iterator[list[End]]:
    made: list[End] = []
    yield made
    for end in made:
        end.socket.close()


def test_a_datagram_arrives_with_the_address_that_answers_reach(ends: list[End]) -> None:
    ends += [End(), End()]
    a, b = ends

    assert a.socket.send(b.socket.address, b"hello")
    b.wait("received", 1)

    assert b.socket.take(10) == [(a.socket.address, b"hello")]


def test_the_same_over_ipv6(ends: list[End]) -> None:
    try:
        ends += [End("::1"), End("[::1]")]
    except OSError:
        pytest.skip("this machine has no IPv6")
    a, b = ends

    assert a.socket.address.startswith("[::1]:")
    assert a.socket.send(b.socket.address, b"hello")
    b.wait("received", 1)

    assert b.socket.take(10) == [(a.socket.address, b"hello")]


def test_a_socket_of_all_addresses_of_both_families_talks_to_ipv4(ends: list[End]) -> None:
    try:
        ends += [End("::"), End("127.0.0.1")]
    except OSError:
        pytest.skip("this machine has no IPv6")
    both, four = ends
    port = both.socket.address.rpartition(":")[2]

    assert four.socket.send(f"127.0.0.1:{port}", b"in")
    both.wait("received", 1)
    ((source, _),) = both.socket.take(1)
    assert source == four.socket.address
    assert both.socket.send(source, b"out")
    four.wait("received", 1)

    assert four.socket.take(1) == [(f"127.0.0.1:{port}", b"out")]


def test_the_newest_is_taken_first_and_above_the_bound_the_oldest_is_dropped(ends: list[End]) -> None:
    end = End()
    ends.append(end)
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(-(-(QUEUE_MAX + 10) // ADDRESS_BURST))]
    target = ("127.0.0.1", int(end.socket.address.rpartition(":")[2]))

    for number in range(QUEUE_MAX + 10):
        senders[number // ADDRESS_BURST].sendto(number.to_bytes(2, "big"), target)
        end.wait("received", number + 1)
    for one in senders:
        one.close()
    taken = [int.from_bytes(data, "big") for _, data in end.socket.take(5_000)]

    assert taken == list(range(QUEUE_MAX + 9, 9, -1))
    assert end.socket.counts["overflowed"] == 10


def test_one_source_gets_no_more_than_its_rate_into_the_queue(ends: list[End]) -> None:
    ends += [End(), End()]
    flood, end = ends

    for number in range(ADDRESS_BURST + 7):
        flood.socket.send(end.socket.address, b"x")
        end.wait("received", number + 1)

    assert end.socket.counts["too_many"] == 7
    assert len(end.socket.take(5_000)) == ADDRESS_BURST


def test_what_is_too_long_is_dropped_and_never_sent(ends: list[End]) -> None:
    end = End()
    ends.append(end)
    host, _, port = end.socket.address.rpartition(":")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(bytes(BYTES_MAX + 1), (host, int(port)))
        other.sendto(bytes(BYTES_MAX), (host, int(port)))
    end.wait("received", 2)

    assert [len(data) for _, data in end.socket.take(10)] == [BYTES_MAX]
    assert end.socket.counts["too_long"] == 1
    with pytest.raises(ValueError, match="limit is 1400"):
        end.socket.send(end.socket.address, bytes(BYTES_MAX + 1))


def test_an_arrival_that_nobody_took_is_told_of_again(ends: list[End]) -> None:
    ends += [End(), End()]
    a, b = ends
    b.takes = False

    a.socket.send(b.socket.address, b"1")
    b.wait("told", 1)
    a.socket.send(b.socket.address, b"2")
    b.wait("told", 2)

    assert b.told == 2
    assert [data for _, data in b.socket.take(10)] == [b"2", b"1"]


def test_a_port_that_is_taken_is_left_to_whoever_has_it(ends: list[End]) -> None:
    first = End()
    ends.append(first)
    port = int(first.socket.address.rpartition(":")[2])

    second = End(port=port)
    ends.append(second)

    assert port < int(second.socket.address.rpartition(":")[2]) < port + PORTS


def test_when_all_ports_are_taken_it_is_said_which_and_what_to_do() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        with contextlib.suppress(OSError):  # somebody else has it, which is as good
            last.bind(("127.0.0.1", 65_535))

        with pytest.raises(OSError, match=r"all ports from 65535 to 65535 are taken, choose another --gossip-port"):
            End(port=65_535)


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError):
        End("192.0.2.1", 17_888)


def test_a_closed_socket_gives_its_port_back(ends: list[End]) -> None:
    first = End()
    address = first.socket.address
    first.socket.close()

    again = End(port=int(address.rpartition(":")[2]))
    ends.append(again)

    assert again.socket.address == address


def test_a_socket_that_was_taken_away_says_so_instead_of_staying_silent(ends: list[End]) -> None:
    end = End()
    ends.append(end)

    end.socket._socket.close()  # as a program does that closes descriptors that are not its own
    end.socket._waker.send(b"0")
    end.wait("told", 1)

    with pytest.raises(OSError, match="can no longer be read"):
        end.socket.take(1)


@pytest.mark.parametrize(
    ("host", "address", "reached"),
    [
        ("127.0.0.1", "127.0.0.1:9", True),
        ("127.0.0.1", "[::1]:9", False),
        ("::1", "127.0.0.1:9", False),
        ("::1", "[::1]:9", True),
        ("::", "127.0.0.1:9", True),
        ("0.0.0.0", "127.0.0.1:9", True),
    ],
)
def test_it_is_known_whether_an_address_can_be_reached_at_all(
    ends: list[End], host: str, address: str, reached: bool
) -> None:
    ends.append(End(host))

    assert ends[0].socket.reaches(address) is reached
    assert ends[0].socket.counts["sent"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="others send from the loopback interface and lose it on the way")
def test_another_machine_is_not_reached_from_the_loopback_interface(ends: list[End]) -> None:
    ends.append(End())

    assert not ends[0].socket.reaches("192.0.2.1:9")


def test_an_address_of_the_other_family_is_not_sent_to(ends: list[End]) -> None:
    end = End()
    ends.append(end)

    assert not end.socket.send("[::1]:17888", b"x")
    assert not end.socket.send("nonsense", b"x")
    assert end.socket.counts["unsent"] == 2


@pytest.mark.parametrize(
    ("advertise", "address"),
    [
        ("", "127.0.0.1:17888"),
        ("192.0.2.1:5", "192.0.2.1:5"),
        ("192.0.2.1", "192.0.2.1:17888"),
        ("[2001:db8::1]:5", "[2001:db8::1]:5"),
        ("[2001:db8::1]", "[2001:db8::1]:17888"),
        ("2001:db8::1", "[2001:db8::1]:17888"),
    ],
)
def test_what_is_advertised_has_an_address_and_a_port(advertise: str, address: str) -> None:
    assert advertised_address(advertise, "127.0.0.1:17888") == address


def test_what_is_bound_everywhere_is_advertised_at_one_address() -> None:
    host, _, port = advertised_address("", "0.0.0.0:17888").rpartition(":")

    assert port == "17888"
    assert host != "0.0.0.0"


@pytest.mark.parametrize("advertise", ["192.0.2.1:99999", "192.0.2.1:x", "host with blanks", "no-such-host.invalid"])
def test_what_cannot_be_advertised_is_an_error(advertise: str) -> None:
    with pytest.raises(OSError):
        advertised_address(advertise, "127.0.0.1:17888")


@pytest.mark.parametrize(
    "advertise",
    [":::", "[::1", "::1]", "127.0.0.1:0", "name:99999", "a b", "0.0.0.0:5", "[::]:5", "::", ":5", "[name]"],
)
def test_what_is_no_place_to_be_reached_at_is_known_before_anything_is_looked_up(advertise: str) -> None:
    with pytest.raises(ValueError, match=r"is not HOST or HOST:PORT|means all addresses"):
        parse_advertise(advertise)


@pytest.mark.parametrize(
    ("advertise", "host", "port"),
    [("name", "name", None), ("Name.example:5", "name.example", 5), ("[::1]", "::1", None), ("::1", "::1", None)],
)
def test_a_name_may_be_advertised_with_a_port_or_without(advertise: str, host: str, port: int | None) -> None:
    assert parse_advertise(advertise) == (host, port)
