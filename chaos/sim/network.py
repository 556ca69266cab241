"""The simulated network: what becomes of a datagram between two nodes.

Each directed link may lose, delay, repeat, reorder, corrupt or block. All chances are whole numbers of 10,000, all
durations ns; delays come from a table in whole microseconds, so no platform's logarithm can change a run.

While the network is calm (it loses and delays, the same everywhere), the fate of a datagram is a hash of its sender,
its receiver, its time and its place among those sent at once. So it does not depend on what else is on the way, and
what others do does not shift it. A rough network draws from the chance of the run. The hash is Python's own of a tuple
of numbers (xxHash), which is the same for every CPython of 64 bits and costs a quarter of one written in Python.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    pass

__all__ = ["CHANCE", "LAN", "Link", "Network"]

CHANCE: Final = 10_000
_US: Final = 1_000
_MS: Final = 1_000_000
_TABLE_BITS: Final = 10
# Which bits of a hash say what.
DELAY_SHIFT: Final = 40
DELAY_MASK: Final = (1 << _TABLE_BITS) - 1
LOSS_SHIFT: Final = 20
LOSS_MASK: Final = (1 << 20) - 1


def _exponential(mean_us: int) -> tuple[int, ...]:
    size = 1 << _TABLE_BITS
    return tuple(round(-math.log1p(-(at + 0.5) / size) * mean_us) * _US for at in range(size))


@dataclass(frozen=True, slots=True)
class Link:
    """What a link does. floor_us and mean_us: the shortest delay, and what comes on top of it on average.

    loss, duplicate, reorder, corrupt: chances of 10,000; a reordered or repeated datagram comes up to 200 ms later.
    """

    loss: int = 0
    floor_us: int = 100
    mean_us: int = 300
    duplicate: int = 0
    reorder: int = 0
    corrupt: int = 0
    blocked: bool = False

    def worse(self, other: Link) -> Link:
        """Return a link with the troubles of both."""
        return Link(
            max(self.loss, other.loss),
            max(self.floor_us, other.floor_us),
            max(self.mean_us, other.mean_us),
            max(self.duplicate, other.duplicate),
            max(self.reorder, other.reorder),
            max(self.corrupt, other.corrupt),
            self.blocked or other.blocked,
        )


LAN: Final = Link()


@dataclass(slots=True)
class _Rule:
    """A link state for all pairs from one group to another; None is everybody."""

    sources: frozenset[int] | None
    targets: frozenset[int] | None
    link: Link


@dataclass(slots=True)
class Network:
    """All links. Rules are named, so that a fault can be taken back."""

    rng: random.Random
    base: Link = LAN
    _rules: dict[str, _Rule] = field(default_factory=dict)
    _cache: dict[tuple[int, int], Link] = field(default_factory=dict)
    _tables: dict[int, tuple[int, ...]] = field(default_factory=dict)

    calm: bool = True
    """Whether all links are like the base, and that loses at most."""
    floor_ns: int = LAN.floor_us * _US
    delays: tuple[int, ...] = ()
    loss_of_mask: int = 0
    """The chance of a loss, of LOSS_MASK + 1."""

    def __post_init__(self) -> None:
        self.set_base(self.base)

    def set_base(self, base: Link) -> None:
        self.base = base
        self.floor_ns = base.floor_us * _US
        self.delays = self.table(base.mean_us)
        self.loss_of_mask = base.loss * (LOSS_MASK + 1) // CHANCE
        self._changed()

    def _changed(self) -> None:
        self._cache.clear()
        base = self.base
        self.calm = not self._rules and not (base.duplicate or base.reorder or base.corrupt or base.blocked)

    def rule(self, name: str, link: Link, sources: frozenset[int] | None, targets: frozenset[int] | None) -> None:
        """Make the links from sources to targets worse until the rule is taken back."""
        self._rules[name] = _Rule(sources, targets, link)
        self._changed()

    def lift(self, name: str) -> None:
        self._rules.pop(name, None)
        self._changed()

    def lift_all(self) -> None:
        self._rules.clear()
        self._changed()

    def link(self, source: int, target: int) -> Link:
        found = self._cache.get((source, target))
        if found is None:
            found = self.base
            for rule in self._rules.values():
                if (rule.sources is None or source in rule.sources) and (
                    rule.targets is None or target in rule.targets
                ):
                    found = found.worse(rule.link)
            self._cache[(source, target)] = found
        return found

    def table(self, mean_us: int) -> tuple[int, ...]:
        found = self._tables.get(mean_us)
        if found is None:
            found = self._tables[mean_us] = _exponential(mean_us)
        return found

    def deliveries(self, source: int, target: int) -> list[tuple[int, bool]]:
        """Return what becomes of a datagram: (delay in ns, corrupted?) for each copy that arrives."""
        link = self.link(source, target)
        draw = self.rng.random
        if link.blocked or (link.loss and draw() * CHANCE < link.loss):
            return []
        table = self.table(link.mean_us)
        delay = link.floor_us * _US + table[self.rng.getrandbits(_TABLE_BITS)]
        if link.reorder and draw() * CHANCE < link.reorder:
            delay += int(draw() * 200) * _MS
        copies = [(delay, bool(link.corrupt) and draw() * CHANCE < link.corrupt)]
        if link.duplicate and draw() * CHANCE < link.duplicate:
            copies.append((delay + int(draw() * 200) * _MS, False))
        return copies
