"""The slots of a node that its store may claim for without asking.

    queue ──Demand(free slots, after claim n)──▶ taken, if n is the last claim that was made; else it counts slots twice
    store   claims k steps                       those slots are gone
            commits results                      their slots are free again, and the same transaction may claim for them

The queue hears of results before it hears of the claim that uses their slots, so it always has the slot when a step
comes. What it says later replaces this count, so an error here (a worker that shrank, a result that came after its
lease was given up) does not last; a step that finds no slot is given back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from relaymesh.core.fairness import Fairness

__all__ = ["Standing"]


class Standing:
    """The standing demand of one node.

    number: claims made so far. limit: steps per claim. state: where dispatch stands. once: an answer is wanted now,
    also when there is nothing to claim, and ends the demand.
    """

    def __init__(self) -> None:
        self.number = 0
        self.limit = 0
        self.once = False
        self.state = Fairness()
        self._free: Counter[str] = Counter()
        self._stands = False

    @property
    def stands(self) -> bool:
        """Whether there is a demand, be it for no slot at the moment."""
        return self._stands

    def take(
        self, free: Mapping[str, int], *, after_claim: int, limit: int, state: Fairness, once: bool = False
    ) -> bool:
        """Let the queue's count replace ours; return False, and change nothing, if it is older than our last claim."""
        if after_claim != self.number:
            return False
        self._free, self.limit, self.state, self.once = Counter(free), limit, state, once
        self._stands = True
        return True

    def withdraw(self) -> None:
        """Claim nothing until the next demand."""
        self._stands = False
        self._free = Counter()

    def free(self, ended: Iterable[str] = ()) -> Counter[str]:
        """Return the free slots per pool, with those that steps of these pools leave when they are committed."""
        return self._free + Counter(ended) if self._stands else Counter()

    def committed(self, free: Counter[str], claimed: Iterable[str] = ()) -> None:
        """A transaction that began with these free slots has claimed steps for these pools, and is on disk."""
        if self._stands:
            self._free = free - Counter(claimed)

    def answered(self, state: Fairness) -> int:
        """A claim is told to the queue; return its number."""
        self.number += 1
        self.state = state
        if self.once:
            self.withdraw()
        return self.number
