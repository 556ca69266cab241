"""How many packets a source may send: token buckets in whole numbers, asked before anything is computed.

One bucket per address (host and port) and one per host, so that neither one socket nor many of one machine can keep a
node busy with authenticating.
"""

from __future__ import annotations

from typing import Final

from relaymesh.core.mesh.tuning import SECOND

__all__ = ["ADDRESS_BURST", "ADDRESS_RATE", "HOST_BURST", "HOST_RATE", "SOURCES_MAX", "Gate"]

ADDRESS_RATE: Final = 200
ADDRESS_BURST: Final = 400
HOST_RATE: Final = 5_000
HOST_BURST: Final = 10_000
SOURCES_MAX: Final = 4_096


class _Buckets:
    """rate: packets a second; burst: at once. Above SOURCES_MAX the source that was first seen longest ago goes."""

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._full = burst * SECOND
        self._levels: dict[str, tuple[int, int]] = {}

    def spend(self, now_ns: int, key: str) -> bool:
        level, at_ns = self._levels.get(key, (self._full, now_ns))
        level = min(self._full, level + max(0, now_ns - at_ns) * self._rate)
        allowed = level >= SECOND
        if key not in self._levels and len(self._levels) >= SOURCES_MAX:
            del self._levels[next(iter(self._levels))]
        self._levels[key] = (level - SECOND if allowed else level, now_ns)
        return allowed


class Gate:
    """The rate limit of one socket."""

    def __init__(self) -> None:
        self._addresses = _Buckets(ADDRESS_RATE, ADDRESS_BURST)
        self._hosts = _Buckets(HOST_RATE, HOST_BURST)

    def admit(self, now_ns: int, source: str) -> bool:
        """Return whether a packet from this address (``host:port``) may be looked at."""
        host = source.rpartition(":")[0]
        return self._addresses.spend(now_ns, source) and self._hosts.spend(now_ns, host)
