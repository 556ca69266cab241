"""Look host names up off everybody's thread: a few threads of our own, each name at most once a minute.

    addresses(seeds)   what is known now; what is not, or is a minute old, is looked up meanwhile
    wait(seconds)      until nothing is being looked up, or the time is over

A name server that does not answer holds up a thread of this module and nothing else. What it said before stays good
until it says something else.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from relaymesh.core.mesh.seed import SEEDS_MAX, Seed

__all__ = ["ADDRESSES_PER_NAME_MAX", "REFRESH_S", "THREADS_MAX", "Resolver", "lookup"]

REFRESH_S: Final = 60.0
THREADS_MAX: Final = 4
"""Names that are looked up at once; the others wait."""
ADDRESSES_PER_NAME_MAX: Final = 8

Lookup = Callable[[str], Sequence[str]]


def lookup(host: str) -> list[str]:
    """Return the addresses of a host name, as the system knows them. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return [str(entry[4][0]) for entry in found]


class Resolver:
    """See the module. Thread-safe."""

    def __init__(self, look_up: Lookup = lookup, clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._clock = clock
        self._changed = threading.Condition()
        self._known: dict[str, tuple[str, ...]] = {}
        self._asked_at: dict[str, float] = {}
        self._failed: set[str] = set()
        self._busy = 0
        self._todo: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def addresses(self, seeds: Iterable[Seed]) -> tuple[str, ...]:
        """Return the addresses of these seeds as far as they are known, each once, in the order of the seeds."""
        found: dict[str, None] = {}
        for seed in seeds:
            if seed.address is not None:
                found[seed.address] = None
                continue
            for address in self._of(seed):
                found[address] = None
        return tuple(found)

    def unknown(self, seeds: Iterable[Seed]) -> tuple[str, ...]:
        """Return the names of these seeds that were looked up, and of which no address has ever been known."""
        with self._changed:
            return tuple(dict.fromkeys(seed.host for seed in seeds if seed.host in self._failed))

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is being looked up; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._busy == 0, seconds)

    def close(self) -> None:
        """Let the threads end; one that waits for a name server ends with its answer."""
        for _ in self._threads:
            self._todo.put(None)

    def _of(self, seed: Seed) -> list[str]:
        now = self._clock()
        with self._changed:
            asked_at = self._asked_at.get(seed.host)
            room = asked_at is not None or len(self._asked_at) < SEEDS_MAX
            if room and (asked_at is None or now - asked_at >= REFRESH_S):
                self._asked_at[seed.host] = now
                self._busy += 1
                self._todo.put(seed.host)
                if len(self._threads) < min(THREADS_MAX, self._busy):
                    self._start()
            hosts = self._known.get(seed.host, ())
        return [address for host in hosts if (address := Seed(host, seed.port).address) is not None]

    def forget(self, keep: Iterable[Seed]) -> None:
        """Forget names that are no longer asked for."""
        wanted = {seed.host for seed in keep}
        with self._changed:
            for host in [host for host in self._asked_at if host not in wanted]:
                del self._asked_at[host]
                self._known.pop(host, None)
                self._failed.discard(host)

    def _start(self) -> None:
        # Daemons: a lookup cannot be broken off, and must not hold up the end of the process.
        thread = threading.Thread(target=self._run, name="relaymesh-names", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while (host := self._todo.get()) is not None:
            try:
                found: tuple[str, ...] | None = _numeric(self._look_up(host))
            except (OSError, UnicodeError):
                found = None
            with self._changed:
                self._busy -= 1
                if host in self._asked_at:
                    if found:
                        self._known[host] = found
                        self._failed.discard(host)
                    elif host not in self._known:
                        self._failed.add(host)
                self._changed.notify_all()


def _numeric(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return addresses in their one form; those that are good on one interface only cannot be sent to by address."""
    found: dict[str, None] = {}
    for text in addresses:
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            continue
        if isinstance(ip, ipaddress.IPv4Address) or ip.scope_id is None:
            found[str(ip)] = None
    return tuple(found)[:ADDRESSES_PER_NAME_MAX]
