"""Nodes of the same cluster on the local network, by DNS-SD over multicast DNS.

    announce   <node>.<random>._relaymesh._udp.local.   port, TXT: v=1, c=hash of the cluster's name
    browse     others with the same hash ──▶ tell(addresses)

Whatever comes from the network is a hint: somebody may announce anything, so all that follows from it is a packet to
that address, and who answers has to prove who it is. Nothing secret is announced: not the cluster's name, not its key.

The package zeroconf is imported in the thread that is started here, so a node that does not discover pays nothing. A
machine without multicast is told once and no reason to stop.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from relaymesh.core.mesh.seed import Seed
from relaymesh.net.datagram import is_loopback_host

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

__all__ = ["FOUND_MAX", "SERVICE", "Discovery", "addresses_of", "cluster_hash", "may_discover"]

SERVICE: Final = "_relaymesh._udp.local."
FOUND_MAX: Final = 256
"""Announcements that are kept; above it new ones are dropped until old ones go."""
ADDRESSES_PER_NODE_MAX: Final = 8
_ASK_MS: Final = 3_000
_PERSON: Final = b"relaymesh.lan"
_NODE_CHARS_MAX: Final = 40
_GONE: Final = ()


def cluster_hash(label: str) -> str:
    """Return what stands for the name of a cluster on the network: 16 hexadecimal digits."""
    return hashlib.blake2b(label.encode(), digest_size=8, person=_PERSON).hexdigest()


def may_discover(host: str) -> bool:
    """Whether a node that listens at this address announces itself: never when only its own machine reaches it."""
    return not is_loopback_host(host)


def addresses_of(port: int | None, packed: Iterable[bytes]) -> tuple[str, ...]:
    """Return what an announcement says as addresses, at most ADDRESSES_PER_NODE_MAX; none of what cannot be reached."""
    found: dict[str, None] = {}
    if port is None or not 0 < port < 65_536:
        return ()
    for data in packed:
        if len(data) not in (4, 16):
            continue
        ip = ipaddress.ip_address(data)
        if ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.is_loopback:
            continue
        address = Seed(str(ip), port).address
        if address is not None:
            found[address] = None
    return tuple(found)[:ADDRESSES_PER_NODE_MAX]


class Discovery:
    """Announces one node and tells where others are, until it is closed.

    host, port: the address at which others reach the node. tell: gets the addresses of all
    others, the whole list each time, from threads of zeroconf. say: gets one sentence when this machine cannot do it.
    interfaces: for zeroconf; None for all of them.
    """

    def __init__(
        self,
        *,
        node_id: str,
        label: str,
        host: str,
        port: int,
        tell: Callable[[tuple[str, ...]], None],
        say: Callable[[str], None],
        interfaces: list[str] | None = None,
    ) -> None:
        self._hash = cluster_hash(label)
        self._host = host
        self._port = port
        self._tell = tell
        self._say = say
        self._interfaces = interfaces
        # A random part: the same node id on two machines is told by their generations, not by a name clash here.
        safe = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in node_id)
        self._name = f"{safe[:_NODE_CHARS_MAX]}-{secrets.token_hex(4)}.{SERVICE}"
        self._lock = threading.Lock()
        self._found: dict[str, tuple[str, ...]] = {}
        self._told: tuple[str, ...] = ()
        self._zeroconf: Zeroconf | None = None
        self._browser: Any = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="relaymesh-discovery", daemon=True)

    def start(self) -> None:
        """Begin, unless only this machine reaches the node; returns at once."""
        if may_discover(self._host):
            self._thread.start()

    def close(self) -> None:
        """Say goodbye and stop; nothing is told any more."""
        with self._lock:
            self._closed = True
            zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            zeroconf.close()

    def _run(self) -> None:
        try:
            from zeroconf import InterfaceChoice, IPVersion, ServiceBrowser, ServiceInfo, Zeroconf

            info = ServiceInfo(
                SERVICE,
                self._name,
                port=self._port,
                properties={"v": "1", "c": self._hash},
                parsed_addresses=[self._host],
            )
            interfaces: Any = self._interfaces or InterfaceChoice.All
            zeroconf = Zeroconf(interfaces=interfaces, ip_version=IPVersion.All if ":" in self._host else None)
        except Exception as error:  # zeroconf raises what its sockets and its event loop raise, of many kinds
            self._say(f"nodes on the local network are not looked for ({type(error).__name__}: {error}): use seeds")
            return
        with self._lock:
            if self._closed:
                zeroconf.close()
                return
            self._zeroconf = zeroconf
        try:
            zeroconf.register_service(info, allow_name_change=True)
            self._browser = ServiceBrowser(zeroconf, SERVICE, handlers=[self._on_change])
        except Exception as error:
            if not self._closed:
                self._say(f"this node does not announce itself on the local network ({type(error).__name__}: {error})")

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
        if name == self._name:
            return
        if state_change.name == "Removed":
            self._put(name, _GONE)
            return
        info = zeroconf.get_service_info(service_type, name, timeout=_ASK_MS)
        if info is not None:
            self._put(name, self._read(info))

    def _read(self, info: ServiceInfo) -> tuple[str, ...]:
        properties = info.properties or {}
        if properties.get(b"c") != self._hash.encode():
            return _GONE  # another cluster
        return addresses_of(info.port, info.addresses_by_version(_all_versions()))

    def _put(self, name: str, addresses: tuple[str, ...]) -> None:
        with self._lock:
            if self._closed:
                return
            if not addresses:
                self._found.pop(name, None)
            elif name in self._found or len(self._found) < FOUND_MAX:
                self._found[name] = addresses
            found = dict.fromkeys(address for one in sorted(self._found) for address in self._found[one])
            told = tuple(found)[:FOUND_MAX]
            if told == self._told:
                return
            self._told = told
        self._tell(told)


def _all_versions() -> Any:
    from zeroconf import IPVersion

    return IPVersion.All
