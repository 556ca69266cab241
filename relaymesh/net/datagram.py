"""One UDP socket for a process that listens for a while and ends.

Addresses are as packets write them, ``192.0.2.1:17888`` or ``[2001:db8::1]:17888``.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import time
from types import TracebackType
from typing import Final, Self

from relaymesh.errors import RelayMeshError

__all__ = ["DatagramSocket", "GossipBindError", "is_loopback_host", "knows_host"]

_READ_BYTES: Final = 2_048
"""Longer than any packet of ours: what does not fit is cut, and refused for its length."""


class GossipBindError(RelayMeshError):
    """The address for gossip packets cannot be taken."""

    code = "gossip_bind"

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(address, cause)
        self.address, self.cause = address, cause

    def __str__(self) -> str:
        return f"cannot listen for gossip at {self.address} ({self.cause}): choose another --bind-port or --bind"


def is_loopback_host(host: str) -> bool:
    """Whether only this machine reaches what is bound to a host, IPv6 with brackets or without. A name is only if it is
    ``localhost``.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def knows_host(host: str) -> bool:
    """Whether a host is an address, or a name that has one; asks the name servers, which may take seconds."""
    try:
        return bool(socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE))
    except (OSError, UnicodeError):
        return False


class DatagramSocket:
    """Bound when it is made. The port is not shared: who has it gets what is sent there.

    Raises:
        GossipBindError
    """

    def __init__(self, host: str, port: int) -> None:
        host = host.strip("[]")
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        except UnicodeError as error:
            raise GossipBindError(shown, "it is no host name") from error
        except OSError as error:
            raise GossipBindError(shown, error.strerror or type(error).__name__) from error
        try:
            self._socket.bind(target)
        except OSError as error:
            self._socket.close()
            taken = error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE))
            cause = "the port is taken, by a running node perhaps" if taken else error.strerror or type(error).__name__
            raise GossipBindError(shown, cause) from error
        self._ipv6 = family == socket.AF_INET6
        bound = self._socket.getsockname()
        self.address = _written(str(bound[0]), int(bound[1]))
        self.port = int(bound[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, address: str, data: bytes) -> bool:
        """Send a datagram; return False when the system would not."""
        host, _, port = address.rpartition(":")
        try:
            return self._socket.sendto(data, (host.strip("[]"), int(port))) == len(data)
        except OSError:
            return False

    def receive(self, until: float) -> tuple[str, bytes] | None:
        """Return the next datagram with its source, None when ``time.monotonic()`` has come to ``until``."""
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data, source = self._socket.recvfrom(_READ_BYTES)
            except TimeoutError:
                return None
            except OSError as error:
                if getattr(error, "winerror", None) == 10040:  # Windows: the datagram is longer than what is read
                    return ("", bytes(_READ_BYTES))
                continue  # Windows: a datagram of ours came to nobody
            with contextlib.suppress(ValueError):
                return (_written(str(source[0]), int(source[1])), data)
        return None


def _written(host: str, port: int) -> str:
    ip = ipaddress.ip_address(host.partition("%")[0])
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
