"""The slots of a node that its store may claim for without asking.

    queue ──Demand(free slots, after word n)──▶ taken, if n is the last word of the store; else it is older than that
    store   claims k steps        these slots are gone         ──Claimed(n, free)────▶ queue
            commits results       these slots are free again   ──Committed(n, free)──▶ queue

Every word of the store that changes its count has a number and tells the count. The queue compares it with its books
and makes a new demand when they differ: because a worker started, ended or changed its size, or because a result came
after its lease was given up. So the two keep in step without a message, whatever the delays, and no slot is promised
twice for longer than a word takes; a step that finds no slot is given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from relaymesh.core.fairness import Fairness

__all__ = ["Standing"]


class Standing:
    """The standing demand of one node.

    number: words said so far. limit: steps per claim. state: where dispatch stands. once: an answer is wanted now, also
    when there is nothing to claim, and ends the demand.
    """

    def __init__(self) -> None:
        self.number = 0
        self.limit = 0
        self.once = False
        self.state = Fairness()
        self._free: dict[str, int] = {}
        self._stands = False

    @property
    def stands(self) -> bool:
        """Whether there is a demand, be it for no slot at the moment."""
        return self._stands

    @property
    def free(self) -> Mapping[str, int]:
        """The free slots per pool, for pools that have any."""
        return self._free

    def take(self, free: Mapping[str, int], *, after: int, limit: int, state: Fairness, once: bool = False) -> bool:
        """Let the queue's count replace ours; return whether it has slots that we did not know of.

        A count that is older than our last word changes nothing.
        """
        if after != self.number:
            return False
        known = self._free
        self._free, self.limit, self.state, self.once = dict(free), limit, state, once
        self._stands = True
        return any(count > known.get(pool, 0) for pool, count in free.items())

    def withdraw(self) -> None:
        """Claim nothing until the next demand."""
        self._stands = False
        self._free = {}

    def with_ended(self, ended: Iterable[str]) -> dict[str, int]:
        """Return the free slots as they are when steps of these pools are committed."""
        free = dict(self._free)
        if self._stands:
            for pool in ended:
                free[pool] = free.get(pool, 0) + 1
        return free

    def makes_room(self, ended: Iterable[str]) -> bool:
        """Whether something may wait for a slot of these pools: where one was free before, nothing waited for it."""
        return any(not self._free.get(pool) for pool in ended)

    def committed(self, free: dict[str, int]) -> int:
        """What ended is on disk, which leaves these slots free; return the number of the word that says so."""
        self._free = free
        self.number += 1
        return self.number

    def claimed(self, pools: Iterable[str], state: Fairness) -> int:
        """Steps for these pools are claimed, and that is on disk; return the number of the word that says so."""
        free = dict(self._free)
        for pool in pools:
            free[pool] -= 1
        self._free = {pool: count for pool, count in free.items() if count > 0}
        self.state = state
        self.number += 1
        if self.once:
            self.withdraw()
        return self.number
