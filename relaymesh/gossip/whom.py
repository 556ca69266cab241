"""Whom a tick tells: seeds of options and of a file that is read again when it changes, by address."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from relaymesh.core.mesh.event import targets
from relaymesh.core.mesh.seed import SEEDS_MAX, Seed, merge_seeds, parse_seed
from relaymesh.net.resolve import Resolver
from relaymesh.net.seed_file import SeedFile, SeedFileError

__all__ = ["Whom"]

_LOOKUP_S: Final = 2.0
"""So long a tick waits for name servers; a name that is not known by then counts as one that could not be sent to."""


class Whom:
    """See the module. own: our address, which is never told. say: gets one sentence about each bad entry.

    Raises:
        SeedFileError: the file cannot be read now.
    """

    def __init__(
        self, texts: Sequence[str], file: Path | None, *, rng: random.Random, say: Callable[[str], None]
    ) -> None:
        self.own = ""
        self._rng = rng
        self._say = say
        self._resolver = Resolver()
        self._nowhere: set[Seed] = set()  # of which that was said
        self._given = self._parse(texts)
        self._from_file: tuple[Seed, ...] = ()
        self._file = None if file is None else SeedFile(file)
        if self._file is not None:
            self._read(self._file)

    def choose(self, fanout: int) -> list[str | None]:
        """Return up to so many random addresses; None for each name that nobody knows."""
        seeds = [seed for seed in self._seeds() if seed.address != self.own]
        chosen = targets(self._rng, seeds, fanout)
        self._resolver.addresses(chosen)
        self._resolver.wait(_LOOKUP_S)
        found: list[str | None] = []
        for seed in chosen:
            known = self._resolver.addresses([seed])
            addresses = [one for one in known if one != self.own]
            found.append(addresses[0] if addresses else None)
            if not known and seed not in self._nowhere:
                self._nowhere = {*self._nowhere, seed} if len(self._nowhere) < SEEDS_MAX else {seed}
                self._say(f"the seed {seed} is not told: no address is known of that host, check its name")
        return found

    def known(self) -> list[str]:
        """Return all addresses that are known now."""
        return [address for address in self._resolver.addresses(self._all()) if address != self.own]

    def close(self) -> None:
        self._resolver.close()

    def _seeds(self) -> tuple[Seed, ...]:
        if self._file is not None and self._file.changed():
            try:
                self._read(self._file)
            except SeedFileError as error:
                self._say(str(error))  # what it said last stays good: an editor may be replacing it
        return self._all()

    def _all(self) -> tuple[Seed, ...]:
        return merge_seeds(self._given, self._from_file)

    def _read(self, file: SeedFile) -> None:
        found = file.read()
        self._from_file = found.entries
        for fault in found.faults:
            self._say(f"{file.path}, {fault}; the others are used")

    def _parse(self, texts: Sequence[str]) -> tuple[Seed, ...]:
        seeds = []
        for text in texts:
            try:
                seeds.append(parse_seed(text))
            except ValueError as error:
                self._say(f"a seed is left out: {error}")
        return merge_seeds(seeds)
