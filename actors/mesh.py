"""The part of a node that is in a mesh: its board, its addresses, and its branch of the supervision tree.

    mesh (rest for one)
    ├── membership   what counts about members, and its way to the store
    ├── gossip       the socket and the machine
    └── finder       seeds by name, a file of them, the local network; only when there is something to look at

It hangs at the end of the node's tree, so that nothing is restarted because it crashes, and is stopped first, while the
store still takes its last word.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from actors.address import Address
from actors.finder import FinderActor, Wanted
from actors.gossip import GossipActor, Place
from actors.mailbox import Overflow
from actors.membership import MembershipActor
from actors.mesh_board import MeshBoard
from actors.supervisor import SLOW_SWEEP_NS, Child, Supervisor
from relaymesh.core.mesh.hint import normal_address
from relaymesh.core.mesh.label import mesh_label
from relaymesh.core.mesh.tuning import SECOND
from relaymesh.core.supervision import Intensity, Strategy
from relaymesh.errors import ActorError
from relaymesh.net.datagram import is_loopback_host
from relaymesh.store.gossip_ring import RingWatch
from relaymesh.store.root import GOSSIP_KEYS, signs_gossip
from relaymesh.wire.mesh import OwnGeneration
from relaymesh.wire.mesh_key import KeyRing
from relaymesh.wire.store import LocalVerdict

if TYPE_CHECKING:
    from pathlib import Path

    from actors.membership import Desk
    from actors.store_needs import NodeFacts
    from actors.timer import Timers
    from relaymesh.core.mesh.liveness import Verdict
    from relaymesh.core.setting_table import Settings
    from relaymesh.node import GossipOptions

__all__ = ["MeshPart", "on_lan"]

log = logging.getLogger("relaymesh.gossip")

_DIFFERS_NS: Final = 30 * SECOND


class MeshPart:
    """See the module. settings: returns those that hold now."""

    def __init__(
        self,
        options: GossipOptions,
        facts: NodeFacts,
        timers: Timers,
        store: Address,
        desk: Desk,
        *,
        settings: Callable[[], Settings],
        current_generation: Callable[[], int],
        now_ms: Callable[[], int],
        intensity: Intensity,
        on_news: Callable[[], object],
    ) -> None:
        self.board = MeshBoard(on_news, self._tell_verdict)
        self.settings = settings
        self.current_generation = current_generation
        self.now_ms = now_ms
        self._options = options
        self._facts = facts
        self._timers = timers
        self._store = store
        self._desk = desk
        self._intensity = intensity
        self._leaving = False
        self._branch = Address("mesh", capacity=64)
        self.membership = Address("membership", capacity=4096, overflow=Overflow.DROP_NEW)
        self.gossip = Address("gossip", capacity=256, overflow=Overflow.DROP_NEW)
        at_start = settings()
        self._label = mesh_label(
            facts.namespace,
            label=at_start.mesh_label,
            signed=signs_gossip(facts.root, at_start.gossip_shared_secret),
            insecure=at_start.allow_insecure_gossip,
            place=_place_of(facts.root),
        )
        self._rings = RingWatch(facts.root, self._label)
        self._told_problem = ""
        self._differs_since_ns: int | None = None

    def child(self) -> Child:
        """Return the branch, for the supervision tree of the node."""
        options, facts, timers = self._options, self._facts, self._timers
        place = Place(
            node_id=facts.node_id,
            host=options.bind,
            port=options.port,
            advertise=options.advertise,
            label=self._label,
            seeded=bool(options.seeds or options.seeds_file),
            seeds=tuple(address for seed in options.seeds if (address := normal_address(seed)) is not None),
        )
        children = [
            Child(
                self.membership,
                lambda: MembershipActor(facts, self, self._store, self.gossip, self._desk),
            ),
            Child(self.gossip, lambda: GossipActor(place, self.board, self, timers, self.membership)),
        ]
        wanted = Wanted(facts.node_id, self._label, options.seeds, options.seeds_file, on_lan(options))
        if wanted.seeds or wanted.seeds_file or wanted.lan:
            finder = Address("finder", capacity=64, overflow=Overflow.DROP_NEW)
            children.append(Child(finder, lambda: FinderActor(wanted, lambda: self.board.address, timers, self.gossip)))
        return Child(
            self._branch,
            lambda: Supervisor(
                children,
                timers,
                strategy=Strategy.REST_FOR_ONE,
                intensity=self._intensity,
                sweep_ns=SLOW_SWEEP_NS,
            ),
            stop_within_s=3.0,
        )

    def _tell_verdict(self, verdict: Verdict) -> None:
        """The mesh judges the node itself: its worker is paused by that (actors/members.py)."""
        with contextlib.suppress(ActorError):  # at the end of the node
            self._store.tell(LocalVerdict(verdict.alive, verdict.reason))

    def generation(self, number: int) -> None:
        """The store has given the node a generation; called by the StoreActor."""
        self.membership.tell(OwnGeneration(number))

    def leave(self) -> None:
        """The node ends in order: say so when the branch is stopped."""
        self._leaving = True

    # GossipNeeds and MembershipNeeds.

    def leaving(self) -> bool:
        """Whether the node ends in order."""
        return self._leaving

    def key_ring(self) -> KeyRing:
        """Return the keys that hold now; the same object until they change."""
        ring = self._rings.ring(self.settings().gossip_shared_secret)
        if self._rings.problem != self._told_problem:
            self._told_problem = self._rings.problem
            if self._told_problem:
                log.warning("%s; what was known of it holds", self._told_problem)
        self._tell_difference()
        return ring

    def _tell_difference(self) -> None:
        """Say once that setting and file differ; not while a change of the key has reached only one of them yet."""
        now_ns = self._timers.now_ns()
        if not self._rings.differs:
            self._differs_since_ns = None
        elif self._differs_since_ns is None:
            self._differs_since_ns = now_ns
        elif 0 <= self._differs_since_ns <= now_ns - _DIFFERS_NS:
            self._differs_since_ns = -1  # told
            log.warning("gossipSharedSecret and %s name different keys: the setting decides which is used", GOSSIP_KEYS)


def on_lan(options: GossipOptions) -> bool:
    """Whether the node announces itself on the local network, and asks there."""
    return options.zeroconf and not is_loopback_host(options.bind)


def _place_of(root: Path) -> str:
    """Return what names this root on this machine, whatever path leads there."""
    facts = root.stat()
    return f"{facts.st_dev}:{facts.st_ino}"
