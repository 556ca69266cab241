"""Whether a root stands still although it could move: work is ready, slots are free, and nothing happens.

    ready since r        for the oldest step of each agent that a free slot could take
    slots free since f   a node that has only just started is given its time
    moved at m           the newest claim or end of a step
                                                     stalled for   now − max(r, f, m)

Each alone is normal: a backlog has old steps while all slots are busy, an idle node has free slots, and between two
long steps nothing happens. Only together do they mean that somebody has to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["STALL_MS", "FreeSlots", "Waiting", "stalled_for_ms"]

STALL_MS: Final = 10_000
"""A root that could have moved for this long is unwell."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The ready steps of one agent. room: how many more of them its own limit lets run now, None without a limit."""

    agent_id: str
    ready_since_ms: int
    room: int | None = None


@dataclass(frozen=True, slots=True)
class FreeSlots:
    """What one live node could take: the agents it knows by slot pool, and its free slots by pool, since when."""

    pools: Mapping[str, str]
    free: Mapping[str, int]
    since_ms: int


def stalled_for_ms(
    waiting: Iterable[Waiting], nodes: Iterable[FreeSlots], *, moved_at_ms: int | None, now_ms: int
) -> int:
    """Return for how long some ready step could have been taken while nothing moved; 0 when there is none.

    moved_at_ms: the newest claim or end of a step, None when there was none. An instant after now counts as now.
    """
    known = list(nodes)
    longest = 0
    for group in waiting:
        if group.room is not None and group.room <= 0:
            continue
        for node in known:
            if node.free.get(node.pools.get(group.agent_id, ""), 0) > 0:
                since = max(group.ready_since_ms, node.since_ms, moved_at_ms or 0)
                longest = max(longest, now_ms - since)
    return longest
