"""The limits and pauses of a root, and how much room they leave.

    overall ─┐
    agent   ─┼─ each: at most N running, and at most R starts in a period ──▶ room: the least of all that apply
    key     ─┘      (a key without limits of its own goes by those of each key)

    paused: overall, an agent, a priority, a node ──▶ nothing new is taken there; what runs goes on to its end

Running steps are counted from their leases, so a crash leaks no place: its lease ends, or is taken back, and the place
with it. Which room there is says what ``relaymesh.core.fairness`` may pick; it decides nothing about order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from relaymesh.core.token_bucket import Bucket, Rate, available, due_in_ms

if TYPE_CHECKING:
    from relaymesh.core.budget import Budgeted

__all__ = [
    "DEFAULT_KEY_LIMIT",
    "UNLIMITED",
    "Held",
    "Hold",
    "Limit",
    "LimitScope",
    "PauseScope",
    "Room",
    "Rules",
    "room_of",
]

UNLIMITED: Final = 2**31 - 1
"""More room than anybody asks for."""


class LimitScope(StrEnum):
    """What a limit is about. ``EACH_KEY`` is for keys that have none of their own."""

    OVERALL = "overall"
    AGENT = "agent"
    KEY = "key"
    EACH_KEY = "each_key"


class PauseScope(StrEnum):
    """What a pause is about."""

    OVERALL = "overall"
    AGENT = "agent"
    PRIORITY = "priority"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Limit:
    """max_concurrency: steps that may run at a time. rate: how often one may start. None is no limit."""

    max_concurrency: int | None = None
    rate: Rate | None = None


DEFAULT_KEY_LIMIT: Final = Limit(max_concurrency=1)
"""What holds for each key until somebody says otherwise: one step of a key at a time."""


@dataclass(frozen=True, slots=True)
class Rules:
    """All limits and pauses of a root at one moment.

    limits: by scope and name; the name is "" where the scope needs none. pauses: scope and name to since when, in ms.
    budgets: who has any; None on a root without.
    """

    limits: Mapping[tuple[LimitScope, str], Limit] = field(default_factory=dict)
    pauses: Mapping[tuple[PauseScope, str], int] = field(default_factory=dict)
    budgets: Budgeted | None = None

    def __bool__(self) -> bool:
        return bool(self.limits or self.pauses) or self.budgets is not None

    @property
    def keyed(self) -> bool:
        """Whether steps with a key may exist: the first one brings the limit of each key."""
        return (LimitScope.EACH_KEY, "") in self.limits

    @property
    def overall(self) -> Limit | None:
        """The limit of the whole root."""
        return self.limits.get((LimitScope.OVERALL, ""))

    def of_agent(self, agent_id: str) -> Limit | None:
        """Return the limit that was set for an agent; it beats the one in the agent's own code."""
        return self.limits.get((LimitScope.AGENT, agent_id))

    def of_key(self, key: str) -> Limit:
        """Return the limit of a key: its own, or that of each key."""
        own = self.limits.get((LimitScope.KEY, key))
        return own if own is not None else self.limits.get((LimitScope.EACH_KEY, ""), DEFAULT_KEY_LIMIT)

    def pause_of(self, agent_id: str, priority: str) -> tuple[PauseScope, str] | None:
        """Return the widest pause that keeps steps of this agent and lane from being taken anywhere."""
        for pause in ((PauseScope.OVERALL, ""), (PauseScope.AGENT, agent_id), (PauseScope.PRIORITY, priority)):
            if pause in self.pauses:
                return pause
        return None

    def restrains(self, agent_id: str) -> bool:
        """Whether steps of an agent may wait on purpose, without a look at how far a limit is used up."""
        wide = self.overall is not None or (PauseScope.OVERALL, "") in self.pauses
        lanes = any(scope is PauseScope.PRIORITY for scope, _ in self.pauses)
        spends = self.budgets is not None and agent_id in self.budgets.agents
        held = self.of_agent(agent_id) is not None or (PauseScope.AGENT, agent_id) in self.pauses
        return wide or lanes or spends or held

    def drains(self, node_id: str) -> bool:
        """Whether a node takes nothing new."""
        return (PauseScope.NODE, node_id) in self.pauses

    def stops(self, node_id: str) -> bool:
        """Whether a node may take nothing at all now."""
        return bool(self.pauses) and (self.drains(node_id) or (PauseScope.OVERALL, "") in self.pauses)


class Held(StrEnum):
    """What kind of limit leaves no room."""

    CONCURRENCY = "concurrency"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Hold:
    """Which limit leaves no room. due_in_ms: when a rate gives the next start; None where only an end gives room."""

    kind: Held
    due_in_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """How many more may start now, and, with none, why."""

    count: int
    hold: Hold | None = None


def room_of(limit: Limit | None, running: int, bucket: Bucket | None, now_ms: int) -> Room:
    """Return the room that one limit leaves. bucket: None when nothing was taken from it yet, which is a full one."""
    if limit is None:
        return Room(UNLIMITED)
    free = UNLIMITED if limit.max_concurrency is None else limit.max_concurrency - running
    if free <= 0:
        return Room(0, Hold(Held.CONCURRENCY))
    if limit.rate is None:
        return Room(free)
    starts = limit.rate.burst if bucket is None else available(limit.rate, bucket, now_ms)
    if starts > 0:
        return Room(min(free, starts))
    assert bucket is not None, "a full bucket has a start"
    return Room(0, Hold(Held.RATE, due_in_ms(limit.rate, bucket, now_ms)))
