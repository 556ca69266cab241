"""One gossip tick: a process that says it is there, listens for a while, and ends.

    first ──▶ our heartbeat with a sample of those that we heard of, to fanout seeds
    hear  ──▶ seen before, our own, older than anybody keeps: counted, dropped
              else kept, and passed on to fanout seeds while it has hops left

It never answers: a node hears only from those that have it among their seeds, or through them. What was heard goes into
the table of members when the window closes (silence.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from relaymesh.core.mesh.event import Event, Flood, targets
from relaymesh.core.mesh.silence import Patience

__all__ = [
    "AHEAD_MS_MAX",
    "HEARTBEATS_MAX",
    "PACKETS_MAX",
    "Heartbeat",
    "Pass",
    "Tick",
    "oldest_ms",
    "plausible",
    "sample",
]

AHEAD_MS_MAX: Final = 300_000
"""A heartbeat further in the future is not believed."""
_WINDOW_MS_MIN: Final = 10_000

PACKETS_MAX: Final = 4_096
"""Datagrams that one tick takes; then it listens no longer."""
HEARTBEATS_MAX: Final = 16_384
"""Heartbeats that one tick keeps; those behind them are dropped."""


class Heartbeat(NamedTuple):
    """A node was alive at an instant, and so were some that it heard of. at_ms, nodes: wall time of each.

    keys: ids of the keys that it opens packets with, the one that it seals with first; empty without a secret.
    """

    at_ms: int
    nodes: tuple[tuple[str, int], ...] = ()
    keys: tuple[bytes, ...] = ()


class Pass(NamedTuple):
    """To whom an event goes on, and with how many hops."""

    to: tuple[str, ...]
    hops_left: int


class Said(NamedTuple):
    """A heartbeat that was accepted, and when."""

    now_ms: int
    origin: str
    beat: Heartbeat


@dataclass(slots=True)
class Tick:
    """One tick of a node. seeds: addresses of all that may be told."""

    flood: Flood
    node_id: str
    seeds: Sequence[str]
    fanout: int
    patience: Patience
    rng: random.Random
    received: int = 0
    accepted: int = 0
    deduplicated: int = 0
    invalid: int = 0
    said: list[Said] = field(default_factory=list)
    _kept: int = 0

    def hear(self, now_ms: int, source: str, event: Event, beat: Heartbeat | None, hops_left: int) -> Pass:
        """Take an event that is authenticated. beat: what is in it; None for another kind, which only passes."""
        if event.origin == self.node_id:
            return Pass((), 0)
        taken = self.flood.take(now_ms, event, hops_left)
        if not taken.fresh:
            self.deduplicated += 1
            return Pass((), 0)
        if beat is not None:
            at_ms = beat.at_ms if beat.at_ms > 0 else now_ms
            if not plausible(at_ms, now_ms=now_ms, patience=self.patience):
                self.invalid += 1
                return Pass((), 0)
            nodes = tuple(
                node
                for node in beat.nodes
                if node[0] != self.node_id and plausible(node[1], now_ms=now_ms, patience=self.patience)
            )
            nodes = nodes[: max(0, HEARTBEATS_MAX - self._kept - 1)]
            self._kept += 1 + len(nodes)
            if self._kept <= HEARTBEATS_MAX:
                self.said.append(Said(now_ms, event.origin, Heartbeat(at_ms, nodes, beat.keys)))
        self.accepted += 1
        if not taken.hops_left:
            return Pass((), 0)
        return Pass(tuple(targets(self.rng, self.seeds, self.fanout, (source, event.address))), taken.hops_left)


def sample(
    rng: random.Random, known: Sequence[tuple[str, int]], most: int, room_bytes: int
) -> tuple[tuple[str, int], ...]:
    """Return members and their heartbeats for a packet: at most so many, at random, and no more than fit."""
    drawn = list(known)
    if len(drawn) > most:
        for at in range(most):
            other = at + int(rng.random() * (len(drawn) - at))
            drawn[at], drawn[other] = drawn[other], drawn[at]
        drawn = drawn[:most]
    taken: list[tuple[str, int]] = []
    for node_id, at_ms in drawn:
        # Heads of array and text, and a number of nine bytes.
        room_bytes -= len(node_id.encode()) + 1 + 3 + 9
        if room_bytes < 0:
            break
        taken.append((node_id, at_ms))
    return tuple(taken)


def oldest_ms(now_ms: int, patience: Patience) -> int:
    """Return how old a heartbeat may be that is passed on or believed."""
    return now_ms - max(_WINDOW_MS_MIN, 2 * patience.dead_after_ms)


def plausible(heartbeat_ms: int, *, now_ms: int, patience: Patience) -> bool:
    """Whether a heartbeat is neither too old nor too far in the future."""
    return oldest_ms(now_ms, patience) <= heartbeat_ms <= now_ms + AHEAD_MS_MAX
