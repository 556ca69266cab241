"""The link proxy, between plain sockets."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from chaos.proxy import CLEAR, NODES_MAX, WAITING_MAX, Proxy
from chaos.sim.network import CHANCE, Link

PATIENCE_S = 10.0
LATE = 5_000_000


class Pair:
    """Two sockets and the proxy between them."""

    def __init__(self, seed: int = 7) -> None:
        self.ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for end in self.ends:
            end.bind(("127.0.0.1", 0))
            end.settimeout(PATIENCE_S)
        self.proxy = Proxy([end.getsockname()[1] for end in self.ends], seed=seed)
        self.faces = [("127.0.0.1", int(face.rpartition(":")[2])) for face in self.proxy.faces]

    def send(self, source: int, *texts: bytes) -> None:
        for text in texts:
            self.ends[source].sendto(text, self.faces[1 - source])

    def take(self, at: int) -> tuple[bytes, tuple[str, int]]:
        data, address = self.ends[at].recvfrom(2_000)
        return data, address

    def all_until(self, at: int, last: bytes) -> list[bytes]:
        """Return what arrives up to the datagram that is sent when the link is clear again."""
        found = []
        while (data := self.take(at)[0]) != last:
            found.append(data)
        return found

    def close(self) -> None:
        self.proxy.close()
        for end in self.ends:
            end.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def settled(pair: Pair, source: int, received: int) -> None:
    """Wait until the proxy has taken so many datagrams of a link in."""
    while pair.proxy.counts(source, 1 - source)["received"] < received:
        pair.proxy._thread.join(0.001)


def through(pair: Pair, link: Link, texts: list[bytes]) -> list[bytes]:
    """Send texts over a bad link, then one over a clear one; return what arrived before the last."""
    pair.proxy.rule("bad", link, [0], [1])
    pair.send(0, *texts)
    settled(pair, 0, len(texts))
    pair.proxy.lift("bad")
    pair.send(0, b"last")
    return pair.all_until(1, b"last")


def test_a_datagram_comes_from_the_face_of_its_sender_and_the_answer_goes_back_through_it(pair: Pair) -> None:
    pair.send(0, b"question")
    question, source = pair.take(1)
    pair.ends[1].sendto(b"answer", source)
    answer, answerer = pair.take(0)

    assert (question, source) == (b"question", pair.faces[0])
    assert (answer, answerer) == (b"answer", pair.faces[1])
    assert pair.proxy.counts(0, 1) == pair.proxy.counts(1, 0) == Counter(received=1, delivered=1)


def test_a_cut_of_one_direction_leaves_the_other_open_and_can_be_taken_back(pair: Pair) -> None:
    pair.proxy.cut("one", [0], [1], one_way=True)
    pair.send(0, b"lost")
    pair.send(1, b"passes")
    passed = pair.take(0)[0]
    settled(pair, 0, 1)
    pair.proxy.lift("one")
    pair.send(0, b"healed")

    assert (passed, pair.take(1)[0]) == (b"passes", b"healed")
    assert pair.proxy.counts(0, 1)["cut"] == 1


def test_a_full_cut_lets_nothing_pass_either_way(pair: Pair) -> None:
    pair.proxy.cut("both", [0], [1])
    for source in (0, 1):
        pair.send(source, b"x")
        settled(pair, source, 1)

    assert [pair.proxy.counts(source, 1 - source)["cut"] for source in (0, 1)] == [1, 1]
    assert pair.proxy.total()["delivered"] == 0


def test_the_same_seed_loses_the_same_datagrams_whatever_passes_on_other_links() -> None:
    texts = [b"%d" % number for number in range(60)]
    arrived = []
    for seed, noise in ((7, 0), (7, 5), (8, 0)):
        pair = Pair(seed)
        try:
            pair.proxy.rule("back", Link(CHANCE // 2, 0, 0), [1], [0])
            pair.send(1, *[b"noise"] * noise)
            settled(pair, 1, noise)
            arrived.append(through(pair, Link(CHANCE // 2, 0, 0), texts))
        finally:
            pair.close()

    assert arrived[0] == arrived[1] != arrived[2]
    assert 10 < len(arrived[0]) < 50


def test_a_bent_datagram_differs_in_one_bit(pair: Pair) -> None:
    (bent,) = through(pair, Link(0, 0, 0, corrupt=CHANCE), [b"twelve bytes"])

    assert int.from_bytes(bent, "big") ^ int.from_bytes(b"twelve bytes", "big") in {1 << bit for bit in range(96)}


def test_a_repeated_datagram_comes_twice(pair: Pair) -> None:
    pair.proxy.rule("again", Link(0, 0, 0, duplicate=CHANCE), [0], [1])
    pair.send(0, b"x")

    assert [pair.take(1)[0], pair.take(1)[0]] == [b"x", b"x"]
    assert pair.proxy.counts(0, 1)["repeated"] == 1


def test_a_delayed_datagram_is_overtaken_by_one_that_is_sent_later(pair: Pair) -> None:
    pair.proxy.rule("late", Link(0, 100_000, 0), [0], [1])
    pair.send(0, b"first")
    settled(pair, 0, 1)
    pair.proxy.lift("late")
    pair.send(0, b"second")

    assert [pair.take(1)[0], pair.take(1)[0]] == [b"second", b"first"]


def test_reordering_changes_the_order_and_loses_nothing(pair: Pair) -> None:
    texts = [b"%02d" % number for number in range(20)]
    pair.proxy.rule("mixed", Link(0, 0, 0, reorder=CHANCE // 2), [0], [1])
    pair.send(0, *texts)
    arrived = [pair.take(1)[0] for _ in texts]

    assert arrived != texts
    assert sorted(arrived) == texts


def test_a_link_with_a_rate_holds_back_what_comes_faster(pair: Pair) -> None:
    # 100 bytes at 1,000 bytes a second are a tenth of a second; nothing waits behind the limit of another link.
    pair.proxy.limit(0, 1, 1_000)
    pair.send(0, b"x" * 100)
    settled(pair, 0, 1)
    waits = pair.proxy.counts(0, 1)["delivered"] == 0
    pair.send(1, b"y")
    assert pair.take(0)[0] == b"y"
    assert len(pair.take(1)[0]) == 100
    assert waits


def test_a_link_holds_so_many_datagrams_and_loses_what_comes_then(pair: Pair) -> None:
    pair.proxy.rule("late", Link(0, LATE, 0), [0], [1])
    more = 10
    for number in range(WAITING_MAX + more):
        pair.send(0, b"x")
        settled(pair, 0, number + 1)  # so that no buffer of the operating system overflows instead

    assert pair.proxy.counts(0, 1)["overflowed"] == more


def test_what_comes_from_elsewhere_goes_nowhere_and_is_counted(pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"let me in", pair.faces[1])
    while not pair.proxy.total()["strangers"]:
        pair.proxy._thread.join(0.001)
    pair.send(0, b"x")

    assert pair.take(1)[0] == b"x"


def test_a_node_that_is_not_there_costs_only_its_own_datagrams(pair: Pair) -> None:
    port = pair.ends[1].getsockname()[1]
    pair.ends[1].close()
    pair.send(0, b"to nobody")
    settled(pair, 0, 1)
    pair.ends[1] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pair.ends[1].bind(("127.0.0.1", port))
    pair.ends[1].settimeout(PATIENCE_S)
    pair.send(0, b"back")

    assert pair.all_until(1, b"back") in ([], [b"to nobody"])


def test_the_ports_are_free_when_it_is_closed(pair: Pair) -> None:
    pair.proxy.close()
    pair.proxy.close()

    for face in pair.faces:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(face)


def test_more_nodes_than_it_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        Proxy(list(range(1, NODES_MAX + 2)), base=CLEAR)
