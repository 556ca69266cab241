"""The FinderActor tells whole lists, of options and of a file, and looks at the LAN only where it is reached."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.address import Address
from actors.finder import LOOK_NS, FinderActor, Wanted
from actors.mesh import on_lan
from relaymesh.core.mesh.hint import Source
from relaymesh.node import GossipOptions
from relaymesh.wire import codec
from relaymesh.wire.kernel import Ping
from relaymesh.wire.mesh import AddressHints
from tests.actors.fakes import PATIENCE_S, ManualTimers, eventually


class Bench:
    """A FinderActor, and what it tells the GossipActor."""

    def __init__(self, *, seeds: tuple[str, ...] = (), file: Path | None = None, lan: bool = False) -> None:
        self.timers = ManualTimers()
        self.gossip, self.address = Address("gossip"), Address("finder")
        self.reached = ""
        wanted = Wanted("a", "label", seeds, file, lan)
        self.actor = FinderActor(wanted, lambda: self.reached, self.timers, self.gossip)
        self.actor.launch(self.address)
        assert self.actor.wait_up(PATIENCE_S)

    def look(self) -> None:
        self.timers.advance(LOOK_NS)
        assert self.address.ask(Ping(), PATIENCE_S) is True

    def told(self) -> list[tuple[Source, tuple[str, ...]]]:
        found = []
        while self.gossip.depth:
            item = self.gossip.mailbox.queue.get(timeout=PATIENCE_S)
            assert isinstance(item, bytes)
            hints = codec.decode(item)
            assert isinstance(hints, AddressHints)
            found.append((Source(hints.source), hints.addresses))
        return found

    def end(self) -> None:
        self.actor.halt()
        assert self.actor.wait_ended(PATIENCE_S)


def write(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.end()


def test_seeds_of_options_are_told_at_once_and_a_bad_one_is_left_out(
    benches: list[Bench], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        benches.append(Bench(seeds=("10.0.0.1:1", "nonsense", "[::1]:2")))

    assert benches[0].told() == [(Source.SEEDS, ("10.0.0.1:1", "[::1]:2"))]
    assert "nonsense" in caplog.text


def test_a_name_is_told_by_its_addresses_when_they_are_known(benches: list[Bench]) -> None:
    benches.append(Bench(seeds=("localhost:5",)))
    told: list[tuple[Source, tuple[str, ...]]] = []

    def known() -> bool:
        benches[0].look()
        told.extend(benches[0].told())
        return any("127.0.0.1:5" in addresses or "[::1]:5" in addresses for _, addresses in told)

    assert eventually(known)


def test_a_file_is_told_apart_from_the_options_and_again_when_it_changed(benches: list[Bench], tmp_path: Path) -> None:
    path = tmp_path / "seeds.txt"
    write(path, "10.0.0.2:1\n")
    benches.append(Bench(seeds=("10.0.0.1:1",), file=path))
    first = benches[0].told()

    write(path, "10.0.0.3:1\n")
    benches[0].look()
    benches[0].look()

    assert first == [(Source.SEEDS, ("10.0.0.1:1",)), (Source.FILE, ("10.0.0.2:1",))]
    assert benches[0].told() == [(Source.FILE, ("10.0.0.3:1",))]


def test_a_missing_file_is_told_once_and_does_no_harm(
    benches: list[Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "later.txt"
    with caplog.at_level(logging.WARNING):
        benches.append(Bench(file=path))
        benches[0].look()
        benches[0].look()

    write(path, "10.0.0.3:1\n")
    benches[0].look()

    assert caplog.text.count("cannot be read") == 1
    assert benches[0].told()[-1] == (Source.FILE, ("10.0.0.3:1",))


def test_the_local_network_is_looked_at_while_others_reach_this_node(
    benches: list[Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    from relaymesh.net import zeroconf_discovery

    begun: list[tuple[str, int]] = []
    closed: list[int] = []

    class Fake:
        def __init__(self, *, host: str, port: int, tell: object, **_: object) -> None:
            self.port = port
            begun.append((host, port))
            tell(("10.0.0.8:1",))  # type: ignore[operator]

        def start(self) -> None:
            pass

        def close(self) -> None:
            closed.append(self.port)

    monkeypatch.setattr(zeroconf_discovery, "Discovery", Fake)
    benches.append(Bench(lan=True))
    benches[0].look()
    assert begun == []

    for benches[0].reached in ("10.0.0.1:17888", "10.0.0.1:17888", "[2001:db8::1]:17889", ""):
        benches[0].look()

    assert begun == [("10.0.0.1", 17888), ("2001:db8::1", 17889)]
    assert closed == [17888, 17889]
    assert (Source.LAN, ("10.0.0.8:1",)) in benches[0].told()


def test_who_is_bound_to_this_machine_does_not_announce_itself(benches: list[Bench]) -> None:
    benches.append(Bench(seeds=("10.0.0.1:1",), lan=False))
    benches[0].reached = "10.0.0.1:17888"

    benches[0].look()

    assert benches[0].actor._discovery is None


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        (GossipOptions(), False),
        (GossipOptions(bind="192.0.2.1"), True),
        (GossipOptions(bind="192.0.2.1", zeroconf=False), False),
        (GossipOptions(bind="::1"), False),
    ],
)
def test_the_local_network_is_asked_by_nodes_that_others_reach_unless_told_not_to(
    options: GossipOptions, asks: bool
) -> None:
    assert on_lan(options) is asks
