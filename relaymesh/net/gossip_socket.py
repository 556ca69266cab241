"""The UDP endpoint of the mesh: non-blocking, bounded, and dropping what is not worth a look as early as possible.

    datagram ──▶ too long? ──▶ too many from there? ──▶ queue of 1,024, newest first ──▶ take, by whoever was told
                 dropped          dropped                the oldest is dropped

A thread of its own reads, so the queue of the operating system never holds what is out of date while its owner is
busy. Nothing here knows keys: what is taken is not authenticated yet.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import select
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from relaymesh.core.mesh.guard import Gate
from relaymesh.core.mesh.hint import normal_address
from relaymesh.core.mesh.seed import parse_seed

__all__ = ["BYTES_MAX", "PORTS", "QUEUE_MAX", "GossipSocket", "advertised_address", "parse_advertise"]

_PORT: Final = 17_888
PORTS: Final = 32
"""So many ports, from the one that was asked for, are tried when one is taken."""
BYTES_MAX: Final = 1_400
QUEUE_MAX: Final = 1_024
_READS_MAX: Final = 256
_BUFFER_BYTES: Final = 262_144
_TAKEN: Final = {errno.EADDRINUSE, 10_013, 10_048}  # the last two: Windows, for a port that another one holds alone
_REST_S: Final = 0.1


class GossipSocket:
    """One bound socket. counts: received, sent, and dropped by reason; written by two threads, each its own words.

    address: where it is bound, ``127.0.0.1:17888``. on_arrival: called in the reading thread when there is something to
    take; returns whether somebody will. Until that one has taken, it is not called again.
    """

    def __init__(
        self, host: str, port: int, on_arrival: Callable[[], bool], *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """port: the first of PORTS that are tried; 0 takes a free one.

        Raises:
            OSError: the address is not one of this machine, or all ports are taken.
        """
        self.counts: Counter[str] = Counter()
        self._on_arrival = on_arrival
        self._clock = clock
        self._gate = Gate()
        self._queue: deque[tuple[str, bytes]] = deque(maxlen=QUEUE_MAX)
        self._told = False
        self._closed = False
        self._failure = ""
        self._socket, self._dual = _bind(host, port)
        self._six = self._socket.family == socket.AF_INET6
        self.address = _text(self._socket.getsockname())
        self._waker, self._waiter = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name="gossip-socket", daemon=True)
        self._thread.start()

    def take(self, most: int) -> list[tuple[str, bytes]]:
        """Return up to so many datagrams and where they came from, the newest first.

        The bytes are as they came. When there are none left the next arrival is told of.

        Raises OSError when the socket can no longer be read.
        """
        if self._failure:
            raise OSError(self._failure)
        taken: list[tuple[str, bytes]] = []
        queue = self._queue
        while queue and len(taken) < most:
            taken.append(queue.pop())
        if not queue:
            self._told = False
            # One that came between the two lines above has been told to nobody.
            if queue:
                self._tell()
        return taken

    def send(self, address: str, data: bytes) -> bool:
        """Send one datagram; return whether the operating system took it. What it does not take at once is lost.

        Raises ValueError for one above BYTES_MAX, which no receiver would read.
        """
        if len(data) > BYTES_MAX:
            raise ValueError(f"a datagram of {len(data)} bytes: the limit is {BYTES_MAX}")
        target = _target(address, self._six, self._dual)
        try:
            if target is not None:
                self._socket.sendto(data, target)
                self.counts["sent"] += 1
                self.counts["sent_bytes"] += len(data)
                return True
        except OSError:  # no route, no buffer: as a datagram that was lost on its way
            pass
        self.counts["unsent"] += 1
        return False

    def reaches(self, address: str) -> bool:
        """Return whether a datagram from here could leave for this address; nothing is sent to find out."""
        target = _target(address, self._six, self._dual)
        if target is None:
            return False
        try:
            with socket.socket(self._socket.family, socket.SOCK_DGRAM) as asked:
                if self._dual:
                    asked.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                asked.bind((self._socket.getsockname()[0], 0))
                asked.connect(target)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Stop; the reading thread ends, and the port is free when this returns."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")
        if self._thread is not threading.current_thread():
            self._thread.join(2.0)
        for one in (self._socket, self._waker, self._waiter):
            one.close()

    def _read(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self._socket, self._waiter], [], [])
                if self._closed:
                    return
                if self._socket in ready:
                    self._drain()
        except (OSError, ValueError) as error:
            if not self._closed:
                self._failure = f"the gossip socket at {self.address} can no longer be read: {error}"
                self._tell()

    def _drain(self) -> None:
        counts, queue = self.counts, self._queue
        now_ns = self._clock()
        for _ in range(_READS_MAX):
            try:
                data, source = self._socket.recvfrom(BYTES_MAX + 1)
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # Windows: something that was sent before did not arrive
            except OSError as error:
                if getattr(error, "winerror", 0) == 10_040:  # Windows: longer than we read
                    counts["too_long"] += 1
                    continue
                counts["unread"] += 1
                time.sleep(_REST_S)  # out of memory, say: what is wrong does not go away by asking at once
                break
            self._keep(now_ns, _text(source), data)
            counts["received"] += 1
            counts["received_bytes"] += len(data)
        if queue and not self._told:
            self._tell()

    def _keep(self, now_ns: int, address: str, data: bytes) -> None:
        if len(data) > BYTES_MAX:
            self.counts["too_long"] += 1
        elif not self._gate.admit(now_ns, address):
            self.counts["too_many"] += 1
        else:
            if len(self._queue) == QUEUE_MAX:
                self.counts["overflowed"] += 1
            self._queue.append((address, data))

    def _tell(self) -> None:
        self._told = True
        if not self._on_arrival():
            self._told = False


def advertised_address(advertise: str, bound: str) -> str:
    """Return where others reach what is bound here, as packets write it.

    advertise: ``HOST:PORT``, or a host or address whose port is the bound one; a name is looked up now. Empty: where it
    is bound; for every address of the machine, the one that a packet to a far place would leave by (nothing is sent to
    find out).

    Raises:
        OSError: the name is not known, or is nothing that can be advertised.
    """
    host, _, port = bound.rpartition(":")
    if advertise:
        return _looked_up(advertise, int(port))
    if host not in ("0.0.0.0", "[::]"):
        return bound
    # Reserved for documentation: the route is looked up, but there is nobody.
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        if family == socket.AF_INET6 and host == "0.0.0.0":
            continue
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((far, 9))
            return _text((asked.getsockname()[0], int(port)))
    return f"127.0.0.1:{port}" if host == "0.0.0.0" else f"[::1]:{port}"


def _looked_up(advertise: str, port: int) -> str:
    try:
        host, told = parse_advertise(advertise)
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        address = normal_address(_text((str(found[0][4][0]), told or port)))
    except socket.gaierror as error:
        raise OSError(errno.EADDRNOTAVAIL, f"no address is known of {advertise}, which --advertise names") from error
    except (ValueError, UnicodeError) as error:
        raise OSError(errno.EADDRNOTAVAIL, f"--advertise: {error}") from error
    if address is None:
        raise OSError(errno.EADDRNOTAVAIL, f"{advertise} is no address to advertise")
    return address


def parse_advertise(text: str) -> tuple[str, int | None]:
    """Return the host of ``HOST[:PORT]`` and its port, None for the one that is bound. Nothing is looked up.

    Raises ValueError, with a reason in words, for what is neither, and for an address that means all of them.
    """
    text = text.strip()
    try:
        host, port = str(ipaddress.IPv6Address(text.removeprefix("[").removesuffix("]"))), None
        if text.startswith("[") != text.endswith("]"):
            raise ValueError("one bracket")
    except ValueError:
        try:
            seed = parse_seed(text if ":" in text else f"{text}:{_PORT}")
        except ValueError as error:
            raise ValueError(
                f'"{text[:60]}" is not HOST or HOST:PORT: give a name or an address, with a port from 1 to 65535, and'
                " an IPv6 address that has a port in brackets"
            ) from error
        host, port = seed.host, seed.port if ":" in text else None
    if host in ("0.0.0.0", "::"):
        raise ValueError(f"{host} means all addresses of a machine: give the one at which others reach it")
    return host, port


def _bind(host: str, port: int) -> tuple[socket.socket, bool]:
    """Return a socket, and whether it takes both families."""
    host = host.strip("[]")
    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    for at in range(port, min(port + PORTS, 65_536)) if port else (0,):
        bound = socket.socket(family, socket.SOCK_DGRAM)
        try:
            dual = family == socket.AF_INET6 and where[0] == "::"
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
            if sys.platform == "win32":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            with contextlib.suppress(OSError):
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            bound.setblocking(False)
            bound.bind((where[0], at, *where[2:]))
        except OSError as error:
            bound.close()
            if not {error.errno, getattr(error, "winerror", 0)} & _TAKEN:
                raise
            continue
        return bound, dual
    last = min(port + PORTS, 65_536) - 1
    raise OSError(errno.EADDRINUSE, f"all ports from {port} to {last} are taken, choose another --gossip-port")


@lru_cache(maxsize=4096)
def _host(host: str) -> str:
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped) if ip.ipv4_mapped is not None else f"[{ip}]"
    return str(ip)


def _text(where: Any) -> str:
    return f"{_host(where[0])}:{where[1]}"


@lru_cache(maxsize=8192)
def _target(address: str, six: bool, dual: bool) -> tuple[str, int] | None:
    """Return an address as the socket takes it; None when it cannot reach it."""
    if normal_address(address) is None:
        return None
    host, _, port = address.rpartition(":")
    if host.startswith("["):
        return (host[1:-1], int(port)) if six else None
    if six:
        return (f"::ffff:{host}", int(port)) if dual else None
    return host, int(port)
