"""When a service level is missed, and how badly.

observed > target            missed
burn rate = observed/target  from 2.0 on it is critical, else a warning
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CRITICAL_BURN_RATE", "Levels", "Miss", "Objective", "Severity", "misses", "objectives"]

CRITICAL_BURN_RATE: Final = 2.0

Severity = Literal["warning", "critical"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What was seen of one metric, and what it should not exceed. A target below 1 counts as 1."""

    metric: str
    observed: int
    target: int

    @property
    def burn_rate(self) -> float:
        """How many times the target was used up."""
        return self.observed / max(1, self.target)

    @property
    def missed(self) -> bool:
        return self.observed > max(1, self.target)

    @property
    def severity(self) -> Severity:
        """How bad it is, if it is missed."""
        return "critical" if self.burn_rate >= CRITICAL_BURN_RATE else "warning"


@dataclass(frozen=True, slots=True)
class Levels:
    """What is observed of a root, or what it should not exceed: ages in ms, and a count of tasks."""

    queue_lag_ms: int
    step_p95_ms: int
    step_p99_ms: int
    dead_growth_1h: int
    replication_lag_ms: int


@dataclass(frozen=True, slots=True)
class Miss:
    """An objective that was missed."""

    metric: str
    observed: int
    target: int
    burn_rate: float
    severity: Severity


def misses(objectives: Iterable[Objective]) -> list[Miss]:
    """Return those that are missed, in the order given."""
    return [Miss(o.metric, o.observed, max(1, o.target), o.burn_rate, o.severity) for o in objectives if o.missed]


def objectives(observed: Levels, target: Levels) -> tuple[Objective, ...]:
    """Return the five service levels of a root."""
    return (
        Objective("queue_lag", observed.queue_lag_ms, target.queue_lag_ms),
        Objective("step_p95", observed.step_p95_ms, target.step_p95_ms),
        Objective("step_p99", observed.step_p99_ms, target.step_p99_ms),
        Objective("dead_growth_1h", observed.dead_growth_1h, target.dead_growth_1h),
        Objective("replication_lag", observed.replication_lag_ms, target.replication_lag_ms),
    )
