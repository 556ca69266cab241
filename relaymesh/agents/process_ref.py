"""One process, and what became of those that were to be killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["KILL_WITHIN_S", "MARK_VARIABLE", "Killed", "Process"]

KILL_WITHIN_S: Final = 2.0
"""How long a killed process may take to be gone; only one that is stuck in the kernel takes longer."""

MARK_VARIABLE: Final = "RELAYMESH_WORKER"
"""Environment variable that every worker gets, with a value of its own, and hands down to what it starts."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told from a later one with the same pid by when it started (unit of the platform)."""

    pid: int
    started: float
    parent: int = 0
    state: str = ""

    @property
    def is_zombie(self) -> bool:
        return self.state in ("Z", "X")

    def is_same(self, other: Process) -> bool:
        return self.pid == other.pid and self.started == other.started


@dataclass(frozen=True, slots=True)
class Killed:
    """What was killed and is gone, and what is still there after ``KILL_WITHIN_S`` (pids)."""

    gone: tuple[int, ...]
    left: tuple[int, ...]
