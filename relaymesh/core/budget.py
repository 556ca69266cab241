"""What may be spent on the work of an agent, of a concurrency key, or of one task: time, and units that agents report.

    attempt ──▶ reports what it has spent so far, in all ──▶ what is new of it is charged to each budget that applies
                                                              agent ─┐
                                                              key   ─┼─ used up (nothing left): nothing new is claimed
                                                              task  ─┘  crossed (less than nothing): what runs is cut

    without a period   one sum, for good
    with one           a sum for each window; windows follow each other without a gap from the Unix epoch on, so one
                       of a day is a day of UTC

Amounts are whole millionths (micros) of a second, a token, a dollar, so that nothing is lost by adding up. The clock
may jump. Ahead, a new window begins, as it would have. Back, what was spent stays spent: no jump back gives
a fresh window.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relaymesh.core.limit import BUDGET_MICROS_MAX, BUDGET_PERIOD_MS_MAX, BUDGET_PERIOD_MS_MIN
from relaymesh.core.outcome import Failed

__all__ = [
    "BUDGET_EXHAUSTED",
    "CPU",
    "MICROS",
    "SPENT_MAX",
    "UNITS",
    "WALL",
    "Budget",
    "BudgetScope",
    "Budgeted",
    "Purse",
    "charged",
    "exhausted",
    "is_crossed",
    "is_used_up",
    "left",
    "settled",
    "turns_in_ms",
    "unseen",
    "window_of",
]

MICROS: Final = 1_000_000
WALL: Final = "wall_seconds"
"""How long attempts took, from their start to their end."""
CPU: Final = "cpu_seconds"
"""Processor time of the worker process and of all below it during an attempt."""
UNITS: Final = "units:"
"""In front of the name of what agents report: ``units:tokens``."""
SPENT_MAX: Final = 4 * BUDGET_MICROS_MAX
"""Where a sum stays, far above every budget, so that it always fits into the database."""

BUDGET_EXHAUSTED: Final = "budget_exhausted"
"""The code of an attempt that was cut, or not begun, because of a budget."""


class BudgetScope(StrEnum):
    """Whose budget it is."""

    AGENT = "agent"
    KEY = "key"
    TASK = "task"


@dataclass(frozen=True, slots=True)
class Budget:
    """amount: micros that may be spent, in each ``period_ms`` or, without one, in all.

    Raises ValueError when one of them is below its least value or above its bound in ``relaymesh.core.limit``.
    """

    amount: int
    period_ms: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= BUDGET_MICROS_MAX:
            raise ValueError(f"the amount is {self.amount} micros: use 0 to {BUDGET_MICROS_MAX:,}")
        if self.period_ms is not None and not BUDGET_PERIOD_MS_MIN <= self.period_ms <= BUDGET_PERIOD_MS_MAX:
            raise ValueError(
                f"the period is {self.period_ms} ms: use {BUDGET_PERIOD_MS_MIN:,} to {BUDGET_PERIOD_MS_MAX:,}"
            )


@dataclass(frozen=True, slots=True)
class Purse:
    """What was spent, in micros, in the window that began at ``window_ms``; 0 for a budget without a period."""

    spent: int = 0
    window_ms: int = 0


def window_of(budget: Budget, now_ms: int) -> int:
    """Return when the window of this instant began, 0 for a budget without a period."""
    return 0 if budget.period_ms is None else now_ms - now_ms % budget.period_ms


def settled(budget: Budget, purse: Purse, now_ms: int) -> Purse:
    """Return the purse of now: a fresh one once the window is over, the same sum when the clock was set back."""
    window_ms = window_of(budget, now_ms)
    if window_ms == purse.window_ms:
        return purse
    return Purse(0 if window_ms > purse.window_ms else purse.spent, window_ms)


def left(budget: Budget, purse: Purse, now_ms: int) -> int:
    """Return the micros that may still be spent; below 0 when more was spent than that."""
    return budget.amount - settled(budget, purse, now_ms).spent


def is_used_up(budget: Budget, purse: Purse, now_ms: int) -> bool:
    """Whether nothing new may begin."""
    return left(budget, purse, now_ms) <= 0


def is_crossed(budget: Budget, purse: Purse, now_ms: int) -> bool:
    """Whether what runs is to end: more was spent than there was. Who spends the last micro may go on for nothing."""
    return left(budget, purse, now_ms) < 0


def charged(budget: Budget, purse: Purse, now_ms: int, micros: int) -> Purse:
    """Return the purse after so much was spent, which is counted where it was reported and not where it was spent.

    Raises ValueError for less than nothing.
    """
    if micros < 0:
        raise ValueError(f"{micros} micros cannot be spent")
    now = settled(budget, purse, now_ms)
    return Purse(min(now.spent + micros, SPENT_MAX), now.window_ms)


def turns_in_ms(budget: Budget, now_ms: int) -> int | None:
    """Return how long until the next window begins; None for a budget without a period."""
    return None if budget.period_ms is None else budget.period_ms - now_ms % budget.period_ms


def unseen(former: int, total: int) -> int:
    """Return what is new of an attempt's sum: reports come late, twice and out of order, and sums only grow."""
    return max(0, total - former)


def exhausted(scope: BudgetScope, name: str, kind: str) -> Failed:
    """Return how an attempt fails that a budget ends.

    That of a task is gone for good, so the step is dead-lettered at once. That of an agent or key fills again, or is
    raised: the step waits for that, and its attempts are counted, since one that needs more than a whole period never
    ends.
    """
    whose = "this task" if scope is BudgetScope.TASK else f"{scope} {name}"
    error = f"the budget of {whose} for {kind} is used up"
    return Failed(BUDGET_EXHAUSTED, error, retryable=scope is not BudgetScope.TASK)


@dataclass(frozen=True, slots=True)
class Budgeted:
    """Who has a budget at all: agents and keys by name, and whether any task has one."""

    agents: frozenset[str]
    keys: frozenset[str]
    tasks: bool
