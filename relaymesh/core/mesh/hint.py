"""Addresses at which a node may be found, from wherever: seeds, a file, the store of the root, the local network.

A hint is unproven. All that comes of one is a packet to that address; who answers has to prove who it is, as everybody.

    told(source, addresses) ──▶ what that source said before is replaced ──▶ addresses: those to ask, best source first
    keep_ns is over ──▶ what the source said is forgotten
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

__all__ = ["HINTS_MAX", "PER_SOURCE_MAX", "Hint", "Hints", "Source", "normal_address"]

HINTS_MAX: Final = 256
"""Addresses that are asked, of all sources together; those of the worse sources are left out first."""
PER_SOURCE_MAX: Final = 256
"""Addresses that one source may tell; what comes behind them is left out."""


class Source(IntEnum):
    """Who says so; the lower the number, the sooner an address is asked when there are too many."""

    SEEDS = 0  # options
    FILE = 1  # a file of seeds
    STORE = 2  # nodes of the same root wrote down where they are
    LAN = 3  # somebody announces itself on the local network
    COMMAND = 4  # told by hand while the node runs


@dataclass(frozen=True, slots=True)
class Hint:
    """One address, who told it, when, and until when it is good (``NEVER_NS`` for as long as nothing else is said)."""

    address: str
    source: Source
    at_ns: int
    until_ns: int


class Hints:
    """What all sources say at present."""

    def __init__(self) -> None:
        self._told: dict[Source, tuple[Hint, ...]] = {}

    def tell(self, now_ns: int, source: Source, addresses: tuple[str, ...], until_ns: int) -> bool:
        """Take the whole list of a source in; return whether the addresses to ask have changed.

        Addresses that are not written as ``normal_address`` writes them are left out.
        """
        before = self.addresses(now_ns)
        good = dict.fromkeys(one for one in addresses if normal_address(one) == one)
        self._told[source] = tuple(Hint(one, source, now_ns, until_ns) for one in [*good][:PER_SOURCE_MAX])
        return self.addresses(now_ns) != before

    def hints(self, now_ns: int) -> tuple[Hint, ...]:
        """Return what is good now, at most HINTS_MAX, each address once: from the best source that tells it."""
        found: dict[str, Hint] = {}
        for source in sorted(self._told):
            for hint in self._told[source]:
                if now_ns < hint.until_ns:
                    found.setdefault(hint.address, hint)
        return tuple(found.values())[:HINTS_MAX]

    def addresses(self, now_ns: int) -> tuple[str, ...]:
        """Return the addresses to ask."""
        return tuple(hint.address for hint in self.hints(now_ns))


@lru_cache(maxsize=1024)
def normal_address(text: str) -> str | None:
    """Return ``192.0.2.1:17888`` or ``[2001:db8::1]:17888`` as packets write it; None for what is no address and port.

    Host names are none: whoever has one looks it up first.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        return f"[{ip}]:{int(port)}" if bracketed and ip.scope_id is None else None
    return None if bracketed else f"{ip}:{int(port)}"
