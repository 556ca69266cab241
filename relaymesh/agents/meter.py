"""What one attempt spends, counted where it runs, and held against what was left for it when it was claimed.

    wall_seconds    from the start of the attempt
    cpu_seconds     of a worker process and all below it; agents in the node (thread, inline) have no such count
    units:NAME      what the agent says

Sums only grow, and are told as sums, so that a report which is lost, late or doubled does no harm.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from relaymesh.core.budget import CPU, WALL, BudgetScope, exhausted
from relaymesh.core.limit import SPEND_MICROS_MAX, UNITS_PER_ATTEMPT_MAX
from relaymesh.core.outcome import Failed

if TYPE_CHECKING:
    from relaymesh.agents.cpu_time import CpuClock
    from relaymesh.wire.work import Allowance

__all__ = ["BEAT_NS", "Meter", "TooManyUnitsError"]

BEAT_NS: Final = 500_000_000
"""How often a running attempt says what it has spent, and how often its processor time is looked at."""


class TooManyUnitsError(ValueError):
    """An attempt reports more different units than it may."""


class Meter:
    """The counts of one attempt. Every method may be called from any thread.

    allowances: what was left of each budget; none for an attempt that nobody limits, which then only reports.
    """

    def __init__(self, allowances: tuple[Allowance, ...], started_at_ns: int) -> None:
        self._allowances = allowances
        self._started_at_ns = started_at_ns
        self._lock = threading.Lock()
        self._units: dict[str, int] = {}
        self._cpu: CpuClock | None = None
        self._wall_left = min((its.left for its in allowances if its.kind == WALL), default=None)
        self.beat_at_ns = started_at_ns + BEAT_NS

    def measure_cpu(self) -> None:
        """Count processor time from now on, if a budget asks for it. To be called in a worker process."""
        if any(its.kind == CPU for its in self._allowances):
            from relaymesh.agents.cpu_time import CpuClock  # most budgets are of money

            self._cpu = CpuClock()

    def spend(self, units: Mapping[str, int]) -> dict[str, int]:
        """Add what the agent says, kinds to micros; return the sums of all units.

        Raises:
            TooManyUnitsError: nothing was added.
        """
        with self._lock:
            if len(self._units.keys() | units.keys()) > UNITS_PER_ATTEMPT_MAX:
                raise TooManyUnitsError(f"an attempt may report {UNITS_PER_ATTEMPT_MAX} different units and no more")
            for kind, micros in units.items():
                self._units[kind] = min(self._units.get(kind, 0) + micros, SPEND_MICROS_MAX)
            return dict(self._units)

    def total(self, now_ns: int) -> dict[str, int]:
        """Return all sums so far, in micros."""
        with self._lock:
            spent = {**self._units, WALL: max(0, now_ns - self._started_at_ns) // 1_000}
            if self._cpu is not None:
                spent[CPU] = self._cpu.used_ns() // 1_000
        return spent

    def crossed(self, spent: Mapping[str, int]) -> Failed | None:
        """Return how the attempt fails when these sums are more than was left for it."""
        for its in self._allowances:
            if spent.get(its.kind, 0) > max(0, its.left):
                return exhausted(BudgetScope(its.scope), its.name, its.kind)
        return None

    def beat(self, now_ns: int) -> None:
        """It was just said what was spent: the next word is due one interval from now."""
        self.beat_at_ns = now_ns + BEAT_NS

    def due_ns(self) -> int:
        """Return when to look again: at the next beat, or when the time that is left is over."""
        if self._wall_left is None:
            return self.beat_at_ns
        return min(self.beat_at_ns, self._started_at_ns + (max(0, self._wall_left) + 1) * 1_000)
