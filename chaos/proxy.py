"""A UDP proxy between real nodes: each directed link loses, delays, repeats, reorders, bends or drops as it is told.

Each node has a face: a port of the proxy, which it advertises in place of its own.

    A :4001 ──▶ face of B :5002 ── the link from A to B ──▶ sent from the face of A :5001 ──▶ B :4002

B sees the packet come from :5001, where A says that it is, so A can prove its address; what B answers goes to :5001 and
over the link from B to A. Who sends is known by the port that it sends from, so one face for each node is enough for a
link of each direction. What comes from anywhere else goes nowhere, and is counted.

What becomes of a datagram is decided as in the simulator, by chance of its link alone: the n-th datagram of a link has
the same fate for the same seed, whatever passes on others. Times are real. Datagrams that are on their way when a link
is cut still arrive. IPv4 on the loopback interface only.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final

from chaos.sim.kernel import seeded
from chaos.sim.network import Link, Network

__all__ = ["CLEAR", "NODES_MAX", "WAITING_MAX", "Proxy"]

CLEAR: Final = Link(floor_us=0, mean_us=0)
NODES_MAX: Final = 64
"""Nodes behind one proxy: a select() of Windows takes 512 sockets, and Python about 20,000 datagrams a second."""
WAITING_MAX: Final = 1_024
"""Datagrams on their way over one link; those that come then are lost, and counted as overflowed."""
_READS_AT_ONCE: Final = 64
_BUFFER_BYTES: Final = 1_048_576
_DATAGRAM_BYTES: Final = 65_535
_SECOND: Final = 1_000_000_000
_HOST: Final = "127.0.0.1"


class Proxy:
    """Runs in a thread of its own from the start until it is closed; all methods may be called from any thread.

    faces: the addresses that the nodes have to advertise, in the order of their ports.
    """

    def __init__(self, ports: Sequence[int], *, seed: int = 1, base: Link = CLEAR) -> None:
        """ports: the UDP ports at which the nodes are, at 127.0.0.1. base: what all links do.

        Raises:
            ValueError: more than NODES_MAX ports, or one of them twice.
            OSError: there are no ports for the faces.
        """
        if len(ports) > NODES_MAX or len(set(ports)) != len(ports):
            raise ValueError(f"{len(ports)} ports: at most {NODES_MAX} different ones")
        self._nodes = [(_HOST, port) for port in ports]
        self._numbers = {address: number for number, address in enumerate(self._nodes)}
        self._seed = seed
        self._chances = {
            (source, target): seeded(seed, f"{source}>{target}")
            for source in range(len(ports))
            for target in range(len(ports))
        }
        self._network = Network(seeded(seed, "links"), base)
        self._rates: dict[tuple[int, int], int] = {}
        self._free_at: dict[tuple[int, int], int] = {}
        self._waiting: Counter[tuple[int, int]] = Counter()
        self._counts: defaultdict[tuple[int, int], Counter[str]] = defaultdict(Counter)
        self._strangers = 0
        self._heap: list[tuple[int, int, int, int, bytes]] = []
        self._numbered = itertools.count()
        self._lock = threading.Lock()
        self._closed = False
        self._sockets: list[socket.socket] = []
        with contextlib.ExitStack() as undo:
            for _ in ports:
                face = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                with contextlib.suppress(OSError):
                    face.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
                face.setblocking(False)
                face.bind((_HOST, 0))
                self._sockets.append(face)
            undo.pop_all()
        self.faces = tuple(f"{_HOST}:{face.getsockname()[1]}" for face in self._sockets)
        self._waker, self._waiter = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="link-proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_base(self, base: Link) -> None:
        """Say what all links do."""
        with self._lock:
            self._network.set_base(base)

    def rule(
        self, name: str, link: Link, sources: Iterable[int] | None = None, targets: Iterable[int] | None = None
    ) -> None:
        """Make the links from sources to targets (None: all) worse, until the rule of this name is lifted."""
        chosen = [None if nodes is None else frozenset(nodes) for nodes in (sources, targets)]
        with self._lock:
            self._network.rule(name, link, *chosen)

    def cut(self, name: str, sources: Iterable[int], targets: Iterable[int], *, one_way: bool = False) -> None:
        """Let nothing pass from sources to targets, and nothing back unless it is one way; ``lift(name)`` ends it."""
        sources, targets = frozenset(sources), frozenset(targets)
        blocked = Link(floor_us=0, mean_us=0, blocked=True)
        with self._lock:
            self._network.rule(f"{name} there", blocked, sources, targets)
            if not one_way:
                self._network.rule(f"{name} back", blocked, targets, sources)

    def lift(self, name: str) -> None:
        """Take back the rule or the cut of this name, if there is one."""
        with self._lock:
            for each in (name, f"{name} there", f"{name} back"):
                self._network.lift(each)

    def lift_all(self) -> None:
        """Take back all rules, cuts and rates; the base stays."""
        with self._lock:
            self._network.lift_all()
            self._rates.clear()

    def limit(self, source: int, target: int, bytes_per_second: int) -> None:
        """Let at most so many bytes of payload a second over a link; 0 for as many as there are."""
        with self._lock:
            self._rates[(source, target)] = max(0, bytes_per_second)

    def counts(self, source: int, target: int) -> Counter[str]:
        """Return what one link did: received, delivered, lost, cut, repeated, bent, overflowed, unsent; those that
        wait are in none but the first.
        """
        with self._lock:
            return Counter(self._counts[(source, target)])

    def total(self) -> Counter[str]:
        """Return the counts of all links together, and how many datagrams came from elsewhere (strangers)."""
        with self._lock:
            total: Counter[str] = Counter()
            for counts in self._counts.values():
                total += counts
            total["strangers"] = self._strangers
            return total

    def close(self) -> None:
        """Stop; the ports are free when this returns, and what was on its way is lost."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")
        self._thread.join(5.0)
        for one in (*self._sockets, self._waker, self._waiter):
            one.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._waiter, selectors.EVENT_READ, -1)
            for number, face in enumerate(self._sockets):
                selector.register(face, selectors.EVENT_READ, number)
            while not self._closed:
                ready = selector.select(self._patience())
                with self._lock:
                    for key, _ in ready:
                        if key.data >= 0:
                            self._drain(key.data)
                    self._deliver()

    def _patience(self) -> float | None:
        if not self._heap:
            return None
        return max(0, self._heap[0][0] - time.monotonic_ns()) / _SECOND

    def _drain(self, target: int) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data, address = self._sockets[target].recvfrom(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # Windows: something that was sent before found nobody
            source = self._numbers.get(address)
            if source is None or source == target:
                self._strangers += 1
            else:
                self._take(source, target, data)

    def _take(self, source: int, target: int, data: bytes) -> None:
        which = (source, target)
        counts = self._counts[which]
        counts["received"] += 1
        if self._network.link(source, target).blocked:
            counts["cut"] += 1
            return
        self._network.rng = self._chances[which]
        copies = self._network.deliveries(source, target)
        counts["lost"] += not copies
        counts["repeated"] += len(copies) > 1
        for delay_ns, bent in copies:
            if self._waiting[which] >= WAITING_MAX:
                counts["overflowed"] += 1
                continue
            counts["bent"] += bent
            due_ns = self._passed(which, len(data)) + delay_ns
            self._waiting[which] += 1
            copy = self._bend(which, data) if bent else data
            heapq.heappush(self._heap, (due_ns, next(self._numbered), source, target, copy))

    def _passed(self, which: tuple[int, int], size: int) -> int:
        """Return when a datagram has left the narrow part of its link, in ns."""
        now_ns = time.monotonic_ns()
        rate = self._rates.get(which, 0)
        if not rate:
            return now_ns
        self._free_at[which] = max(now_ns, self._free_at.get(which, 0)) + size * _SECOND // rate
        return self._free_at[which]

    def _bend(self, which: tuple[int, int], data: bytes) -> bytes:
        """Return the datagram with one bit flipped."""
        if not data:
            return b"\0"
        bit = self._chances[which].randrange(len(data) * 8)
        bent = bytearray(data)
        bent[bit // 8] ^= 1 << bit % 8
        return bytes(bent)

    def _deliver(self) -> None:
        heap = self._heap
        now_ns = time.monotonic_ns()
        while heap and heap[0][0] <= now_ns:
            _, _, source, target, data = heapq.heappop(heap)
            which = (source, target)
            self._waiting[which] -= 1
            try:
                self._sockets[source].sendto(data, self._nodes[target])
            except OSError:  # no buffer, or (Windows) nobody there: lost as on any network
                self._counts[which]["unsent"] += 1
            else:
                self._counts[which]["delivered"] += 1
