"""How many wrong tokens one source may show: so many in a UTC minute, then it is sent away until the minute is over.

Bounded: at most ``SOURCES_MAX`` sources are told apart within a minute; those beyond share one count, so that whoever
has many addresses does not get more tries by it. IPv6 addresses count by their first 64 bits, which one customer has.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from relaymesh.core.admission import MINUTE_MS

__all__ = ["SOURCES_MAX", "WRONG_PER_MINUTE_MAX", "AttemptLimit", "source_of"]

SOURCES_MAX: Final = 1_024
WRONG_PER_MINUTE_MAX: Final = 20
_OTHERS: Final = "…"


def source_of(address: str) -> str:
    """Return what counts as one source, of an address without its port."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    mapped = ip.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


class AttemptLimit:
    """The counts of one listener. Not thread-safe."""

    def __init__(self, *, wrong_max: int = WRONG_PER_MINUTE_MAX, sources_max: int = SOURCES_MAX) -> None:
        self._wrong_max = wrong_max
        self._sources_max = sources_max
        self._minute = -1
        self._wrong: dict[str, int] = {}

    def shut(self, source: str, now_ms: int) -> bool:
        """Say whether the source has to wait for the next minute, whatever it shows."""
        return self._counts(now_ms).get(self._name(source), 0) >= self._wrong_max

    def failed(self, source: str, now_ms: int) -> None:
        """Count a wrong token."""
        counts = self._counts(now_ms)
        name = self._name(source)
        counts[name] = counts.get(name, 0) + 1

    def _name(self, source: str) -> str:
        known = source in self._wrong or len(self._wrong) < self._sources_max
        return source if known else _OTHERS

    def _counts(self, now_ms: int) -> dict[str, int]:
        minute = now_ms // MINUTE_MS
        if minute != self._minute:  # also when the clock was set back
            self._minute, self._wrong = minute, {}
        return self._wrong
