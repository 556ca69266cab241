"""FinderActor: tells the GossipActor where nodes may be: seeds by name, a file of them, the local network.

    SeedTick, every 2 s ──▶ file changed? names known now? ──AddressHints──▶ gossip
    the socket is bound where others reach it ──▶ announce ourselves, and browse ──AddressHints──▶ gossip

Names are looked up in threads of their own (relaymesh.net.resolve), so nothing here waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.address import Address
from actors.base import Actor
from actors.timer import Timers
from relaymesh.core.mesh.hint import Source
from relaymesh.core.mesh.seed import Seed, parse_seed
from relaymesh.core.mesh.tuning import MS, SECOND
from relaymesh.net.seed_file import SeedWatch
from relaymesh.wire.mesh import AddressHints, SeedTick

if TYPE_CHECKING:
    from relaymesh.net.zeroconf_discovery import Discovery

__all__ = ["LOOK_NS", "FinderActor", "Wanted"]

log = logging.getLogger("relaymesh.gossip")

LOOK_NS: Final = 2 * SECOND
_SOON_NS: Final = 200 * MS


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to look. seeds: as they were written. lan: the local network too, once others reach this node."""

    node_id: str
    label: str
    seeds: tuple[str, ...]
    seeds_file: Path | None
    lan: bool


class FinderActor(Actor):
    """See the module. reached_at: where others reach this node now, empty while nobody does."""

    takes = SeedTick

    def __init__(self, wanted: Wanted, reached_at: Callable[[], str], timers: Timers, gossip: Address) -> None:
        super().__init__()
        self._wanted = wanted
        self._reached_at = reached_at
        self._timers = timers
        self._gossip = gossip
        self._watches: list[SeedWatch] = []
        self._discovery: Discovery | None = None
        self._announced = ""

    def started(self) -> None:
        self._watch(Source.SEEDS, self._given(), None)
        if self._wanted.seeds_file is not None:
            self._watch(Source.FILE, (), self._wanted.seeds_file)
        self._look()
        self._timers.every(LOOK_NS, self.address, SeedTick(), key="look")
        # Name servers mostly answer within moments, and the socket is bound by then.
        self._timers.after(_SOON_NS, self.address, SeedTick(), key="soon")

    def receive(self, message: SeedTick) -> None:
        self._look()

    def stopping(self) -> None:
        self.crashed()

    def crashed(self) -> None:
        self._timers.cancel(self.address, "look")
        self._timers.cancel(self.address, "soon")
        self._hide()
        for watch in self._watches:
            watch.close()

    def _look(self) -> None:
        for watch in self._watches:
            watch.look()
        address = self._reached_at() if self._wanted.lan else ""
        if address != self._announced:
            self._announced = address
            self._hide()
            if address:
                self._announce(address)

    def _announce(self, address: str) -> None:
        from relaymesh.net.zeroconf_discovery import Discovery

        host, _, port = address.rpartition(":")
        self._discovery = Discovery(
            node_id=self._wanted.node_id,
            label=self._wanted.label,
            host=host.strip("[]"),
            port=int(port),
            tell=lambda addresses: self._tell(Source.LAN, addresses),
            say=log.warning,
        )
        self._discovery.start()

    def _hide(self) -> None:
        discovery, self._discovery = self._discovery, None
        if discovery is not None:
            discovery.close()

    def _watch(self, source: Source, seeds: tuple[Seed, ...], file: Path | None) -> None:
        watch = SeedWatch(
            seeds,
            file,
            tell=lambda addresses: self._tell(source, addresses),
            say=log.warning,
        )
        self._watches.append(watch)

    def _tell(self, source: Source, addresses: tuple[str, ...]) -> None:
        self._gossip.tell(AddressHints(int(source), addresses))

    def _given(self) -> tuple[Seed, ...]:
        seeds = []
        for text in self._wanted.seeds:
            try:
                seeds.append(parse_seed(text))
            except ValueError as error:
                log.warning("a seed is left out: %s", error)
        return tuple(seeds)
