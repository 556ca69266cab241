"""What a node does beside asking and telling: joining, looking for who came back, forgetting, asking for others, and
asking the other node of its own id.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import Final

from relaymesh.core.mesh.effect import Effect
from relaymesh.core.mesh.opinion import Opinions
from relaymesh.core.mesh.outbox import Outbox
from relaymesh.core.mesh.packet import Kind
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.proof import Relay
from relaymesh.core.mesh.tuning import NEVER_NS, Tuning
from relaymesh.core.mesh.view import View

__all__ = ["RELAYS_MAX", "SEEDS_MAX", "Upkeep"]

SEEDS_MAX: Final = 256
RELAYS_MAX: Final = 64


class Upkeep:
    """The slow work of one node.

    due_ns: when there is some. seeds: addresses to join through.
    """

    __slots__ = (
        "_dead_probe_due_ns",
        "_join_due_ns",
        "_opinions",
        "_outbox",
        "_prune_due_ns",
        "_relays",
        "_rng",
        "_seed_at",
        "_seed_peers",
        "_view",
        "due_ns",
        "seeds",
        "tuning",
    )

    def __init__(
        self, outbox: Outbox, opinions: Opinions, tuning: Tuning, rng: random.Random, now_ns: int, seeds: Iterable[str]
    ) -> None:
        self._outbox = outbox
        self._opinions = opinions
        self._view: View = opinions.view
        self.tuning = tuning
        self._rng = rng
        self.seeds = tuple(seeds)[:SEEDS_MAX]
        self._seed_at = 0
        self._seed_peers: dict[str, Peer] = {}
        self._relays: deque[tuple[int, int, Relay]] = deque()  # when a NACK is due, our nonce, whom to tell
        self._join_due_ns = now_ns if self.seeds else NEVER_NS
        self._dead_probe_due_ns = now_ns + int(rng.random() * tuning.dead_probe_ns)
        self._prune_due_ns = now_ns + tuning.prune_interval_ns if tuning.prune_interval_ns else NEVER_NS
        self.due_ns = now_ns

    @property
    def relays(self) -> int:
        """How many probes of others are under way."""
        return len(self._relays)

    def join(self, now_ns: int, seeds: Iterable[str]) -> None:
        """Join through these addresses from now on."""
        self.seeds = tuple(seeds)[:SEEDS_MAX]
        self._seed_peers.clear()
        if self.seeds and self._view.live == 0:
            self.due_ns = self._join_due_ns = now_ns

    def stop_joining(self) -> None:
        self._join_due_ns = NEVER_NS

    def relay(self, now_ns: int, relay: Relay, peer: Peer, out: list[Effect]) -> None:
        """Ask a member for somebody else; tell that one at 80 % of its patience if there is no answer yet."""
        if len(self._relays) >= RELAYS_MAX:
            return
        nonce = self._outbox.nonce()
        self._outbox.questions.put(nonce, relay)
        due_ns = now_ns + self.tuning.probe_timeout_ns * 8 // 10
        self._relays.append((due_ns, nonce, relay))
        self.due_ns = min(self.due_ns, due_ns)
        self._outbox.ping(out, peer, nonce)

    def forget_relays(self) -> None:
        """This node stood still: who asked does not wait any more."""
        self._relays.clear()

    def step(self, now_ns: int, out: list[Effect]) -> None:
        """Do what is due."""
        while self._relays and self._relays[0][0] <= now_ns:
            _, nonce, relay = self._relays.popleft()
            if self._outbox.questions.waits(nonce):
                self._outbox.send(out, relay.address, Kind.NACK, relay.nonce)
        if now_ns >= self._join_due_ns:
            if self._view.live == 0 and self.seeds:
                self._ask_seeds(out)
                self._join_due_ns = now_ns + self.tuning.join_retry_ns
            else:
                self._join_due_ns = NEVER_NS
        if now_ns >= self._dead_probe_due_ns:
            self._dead_probe_due_ns = now_ns + self.tuning.dead_probe_ns
            self._probe_dead(out)
        if now_ns >= self._opinions.namesake.due_ns:
            self._ask_namesake(now_ns, out)
        if now_ns >= self._prune_due_ns:
            self._prune_due_ns = now_ns + self.tuning.prune_interval_ns
            self._opinions.prune(now_ns, self.tuning.prune_older_than_ns, self.tuning.prune_limit, out)
        self.due_ns = min(
            self._join_due_ns, self._dead_probe_due_ns, self._prune_due_ns, self._opinions.namesake.due_ns
        )
        if self._relays:
            self.due_ns = min(self.due_ns, self._relays[0][0])

    def _ask_seeds(self, out: list[Effect]) -> None:
        others = [seed for seed in self.seeds if seed != self._view.me.address]
        for _ in range(min(self.tuning.fanout, len(others))):
            self._outbox.ping_address(out, others.pop(int(self._rng.random() * len(others))))

    def _ask_namesake(self, now_ns: int, out: list[Effect]) -> None:
        namesake, patience_ns = self._opinions.namesake, self.tuning.dead_after_ns
        if namesake.silent(now_ns, patience_ns):
            assert namesake.other is not None
            self._opinions.rise_above(namesake.other.generation, out)
            self._outbox.follow()
        if namesake.other is not None:
            self._outbox.ping_address(out, namesake.ask(now_ns, patience_ns))

    def _probe_dead(self, out: list[Effect]) -> None:
        me = self._view.me
        if me.gone:
            return
        dead = self._view.pick_dead()
        if dead is not None:
            nonce = self._outbox.nonce()
            self._outbox.questions.put(nonce)
            self._outbox.ping(out, dead, nonce)
        # One seed after the other, when no live member is there: all seeds may have started anew and know nobody.
        if self.seeds:
            self._seed_at = (self._seed_at + 1) % len(self.seeds)
            seed = self.seeds[self._seed_at]
            if seed != me.address and not self._lives_at(seed):
                self._outbox.ping_address(out, seed)

    def _lives_at(self, seed: str) -> bool:
        """Whether a member that is not gone has this address; the one of last time is looked at first."""
        peer = self._seed_peers.get(seed)
        # One that was pruned since is gone.
        if peer is not None and peer.member.address == seed and not peer.member.gone:
            return True
        peer = self._view.at_address(seed)
        if peer is None:
            self._seed_peers.pop(seed, None)
            return False
        self._seed_peers[seed] = peer
        return True
