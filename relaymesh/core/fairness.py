"""Which waiting steps start next: 8 HIGH, 3 NORMAL, 1 LOW, and no lane starves.

One cycle has 12 slots; the position in it is kept from plan to plan::

    slot   0  1  2  3  4  5  6  7 | 8  9 10 | 11
    lane   H  H  H  H  H  H  H  H | N  N  N |  L      then from 0 again

    normal ──── high_run_max HIGH in a row ────▶ the next pick tries LOW first
       ▲                                              │ hit: forced_low + 1, run = 0, the position stays
       └──────────────────────────────────────────────┘ miss: the cycle goes on

A lane that has nothing that fits costs no slot: the position moves over its part of the cycle. Any pick that is not
HIGH resets the run. A candidate that does not fit now (its pool has no free slot, its agent or its key no room) is
passed over and does not block the ones behind it; since a plan only uses room up, passing once is enough, and a plan
looks at each candidate at most once. See docs/decisions/fairness.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["CYCLE", "HIGH_RUN_MAX", "LANES", "Candidate", "Fairness", "Lane", "Plan", "plan"]


class Lane(StrEnum):
    """A priority, and the queue of the steps that have it."""

    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"


LANES: Final[Mapping[str, Lane]] = {str(lane): lane for lane in Lane}
"""Lanes by name: a look-up costs a tenth of a call of the enumeration."""

CYCLE: Final[tuple[Lane, ...]] = (Lane.HIGH,) * 8 + (Lane.NORMAL,) * 3 + (Lane.LOW,)

HIGH_RUN_MAX: Final = 100
"""After this many HIGH in a row the next pick first tries LOW."""

_LANES: Final = (Lane.HIGH, Lane.NORMAL, Lane.LOW)
_HIGH, _LOW = 0, 2
_PART_OF_SLOT: Final = tuple(_LANES.index(lane) for lane in CYCLE)
_PART_BEGIN: Final = (0, 8, 11)
_PART_END: Final = (8, 11, 12)


@dataclass(frozen=True, slots=True)
class Fairness:
    """Where dispatch stands between two plans.

    position: the slot of the cycle that is next, 0..11.
    high_run: HIGH picks since the last other one.
    """

    position: int = 0
    high_run: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.position < len(CYCLE):
            raise ValueError(f"position must be within 0..{len(CYCLE) - 1}, not {self.position}")
        if self.high_run < 0:
            raise ValueError(f"high_run must not be negative, not {self.high_run}")


class Candidate(NamedTuple):
    """A step that may be started: ready, due, and waiting in a lane since ``queued_at_ms``.

    pool: the slots that it needs one of (worker processes of an agent, threads, inline).
    key: its concurrency key, "" without one.
    """

    row_id: int
    agent_id: str
    pool: str
    queued_at_ms: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, in this order, and the state for the next plan.

    forced_low: how many picks were LOW only because of a long run of HIGH.
    """

    state: Fairness
    picks: tuple[Candidate, ...]
    forced_low: int


def plan(
    state: Fairness,
    lanes: Mapping[Lane, Sequence[Candidate]],
    free: Mapping[str, int],
    agent_room: Mapping[str, int],
    limit: int,
    high_run_max: int = HIGH_RUN_MAX,
    key_room: Mapping[str, int] | None = None,
) -> Plan:
    """Choose up to ``limit`` candidates to start now.

    lanes: per lane the candidates in queue order; a missing lane is empty.
    free: free slots per pool; a missing pool has none.
    agent_room: how many more steps of an agent may start; an agent that is missing has no limit.
    key_room: the same by concurrency key; a key that is missing has no limit.

    Raises ValueError for a negative limit or a high_run_max below 1. Takes time in proportion to the candidates looked
    at, which are never more than are given, and ends early once no slot is free.
    """
    if limit < 0:
        raise ValueError(f"limit must not be negative, not {limit}")
    if high_run_max < 1:
        raise ValueError(f"high_run_max must be at least 1, not {high_run_max}")
    slots = {pool: count for pool, count in free.items() if count > 0}
    left = min(limit, sum(slots.values()))
    room = dict(agent_room)
    keys = dict(key_room) if key_room else {}
    waiting = [iter(lanes.get(lane, ())) for lane in _LANES]
    empty = [not lanes.get(lane) for lane in _LANES]
    position, high_run, forced_low = state.position, state.high_run, 0
    picks: list[Candidate] = []

    while left > 0 and not all(empty):
        forced = high_run >= high_run_max and not empty[_LOW]
        if forced:
            part, wanted = _LOW, 1
        else:
            slot = position
            while empty[_PART_OF_SLOT[slot]]:
                slot = _PART_END[_PART_OF_SLOT[slot]] % len(CYCLE)
            part = _PART_OF_SLOT[slot]
            alone = empty.count(True) == 2
            # With nothing in the other lanes the cycle only turns within the part of this one.
            wanted = left if alone else min(left, _PART_END[part] - slot)
            if part == _HIGH and not empty[_LOW]:
                wanted = min(wanted, high_run_max - high_run)
        taken = _take(waiting[part], wanted, slots, room, keys, picks)
        empty[part] = taken < wanted
        if not taken:
            continue
        left -= taken
        high_run = min(high_run + taken, high_run_max) if part == _HIGH else 0
        if forced:
            forced_low += 1
        else:
            begin = _PART_BEGIN[part]
            position = (begin + (slot - begin + taken - 1) % (_PART_END[part] - begin) + 1) % len(CYCLE)
    return Plan(Fairness(position, high_run), tuple(picks), forced_low)


def _take(
    waiting: Iterator[Candidate],
    wanted: int,
    slots: dict[str, int],
    room: dict[str, int],
    keys: dict[str, int],
    picks: list[Candidate],
) -> int:
    """Move up to ``wanted`` candidates that fit into ``picks``; return how many. Fewer means that no other fits."""
    taken = 0
    for candidate in waiting:
        free = slots.get(candidate.pool, 0)
        if not free:
            continue
        agent_id = candidate.agent_id
        if agent_id in room and room[agent_id] <= 0:
            continue
        key = candidate.key
        if key and key in keys:
            if keys[key] <= 0:
                continue
            keys[key] -= 1
        if agent_id in room:
            room[agent_id] -= 1
        slots[candidate.pool] = free - 1
        picks.append(candidate)
        taken += 1
        if taken == wanted:
            break
    return taken
