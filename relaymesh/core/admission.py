"""Whether new work may come in: the gate in front of submit, which keeps a runaway producer from filling the disk.

    duplicates are answered ─▶ queue too deep? ─▶ too much running? ─▶ too many this minute? ─▶ admitted

Only new steps are counted: a submit that names a task which is there already meets no gate. The first bound that stands
in the way answers, in this order; its code never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["MINUTE_MS", "Bounds", "Load", "RefusalCode", "Room", "Window", "judge", "room"]

MINUTE_MS: Final = 60_000


class RefusalCode(StrEnum):
    """Which bound refused a submit."""

    QUEUE_DEPTH = "queue_depth_limit"
    RUNNING_STEPS = "running_step_limit"
    RATE = "submit_rate_limit"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may wait, run and come in; None is no bound.

    queue_depth: steps that wait to be taken or are running, the new ones included. running_steps: nothing is admitted
    while so many run. per_minute: steps admitted in one UTC minute; 0 is no bound, as in the settings.
    """

    queue_depth: int | None = None
    running_steps: int | None = None
    per_minute: int | None = None

    def __bool__(self) -> bool:
        return self.queue_depth is not None or self.running_steps is not None or bool(self.per_minute)


@dataclass(frozen=True, slots=True)
class Window:
    """How many steps were admitted in the UTC minute with this number."""

    minute: int = 0
    admitted: int = 0

    def at(self, now_ms: int) -> Window:
        """Return the window of this instant: a new one when the minute is another, also when the clock went back."""
        minute = now_ms // MINUTE_MS
        return self if minute == self.minute else Window(minute, 0)


@dataclass(frozen=True, slots=True)
class Load:
    """What the root carries now. A count may stop one above the bound that it is for."""

    queue_depth: int
    running_steps: int
    window: Window

    def with_admitted(self, steps: int) -> Load:
        """Return the load once these steps are stored."""
        window = Window(self.window.minute, self.window.admitted + steps)
        return Load(self.queue_depth + steps, self.running_steps, window)


def judge(bounds: Bounds, load: Load, steps: int) -> RefusalCode | None:
    """Return why ``steps`` new steps may not come in, or None when they may."""
    if bounds.queue_depth is not None and load.queue_depth + steps > bounds.queue_depth:
        return RefusalCode.QUEUE_DEPTH
    if bounds.running_steps is not None and load.running_steps >= bounds.running_steps:
        return RefusalCode.RUNNING_STEPS
    if bounds.per_minute and load.window.admitted + steps > bounds.per_minute:
        return RefusalCode.RATE
    return None


@dataclass(frozen=True, slots=True)
class Room:
    """How many new steps may come in now, None for any number. code: the bound that lets none in, else None."""

    steps: int | None = None
    code: RefusalCode | None = None

    def within(self, most: int) -> int:
        """Return how many of ``most`` steps may come in."""
        return most if self.steps is None else min(most, self.steps)


def room(bounds: Bounds, load: Load) -> Room:
    """Return how many new steps may come in, for work that waits outside where a submit would be refused."""
    code = judge(bounds, load, 1)
    if code is not None:
        return Room(0, code)
    left = []
    if bounds.queue_depth is not None:
        left.append(bounds.queue_depth - load.queue_depth)
    if bounds.per_minute:
        left.append(bounds.per_minute - load.window.admitted)
    return Room(min(left)) if left else Room()
