"""How long a suspect may answer before it counts as dead.

    limit = max - log(c + 1) / log(k + 1) x (max - min)      c of k further nodes suspect it too
    min = 4 x max(1, log10 n) x interval, max = 6 x min

Source: Lifeguard (Dadgar, Phillips, Currey 2017), section IV-B. Ours differs: k is 0 when fewer than two others could
confirm, and a report of death shortens the time to min but not below, so that the member can still refute it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from relaymesh.core.mesh.packet import ACCUSERS_MAX
from relaymesh.core.mesh.rumor import hundredths_of_log10

__all__ = ["Suspicion", "limits_ns"]

_FACTOR: Final = 4
_MAX_FACTOR: Final = 6
CONFIRMATIONS: Final = ACCUSERS_MAX - 1
# log(c + 1) / log(3) for c = 0, 1, 2, in thousandths.
_SHRINK: Final = (0, 631, 1000)


@lru_cache(maxsize=1024)
def limits_ns(members: int, interval_ns: int) -> tuple[int, int]:
    """Return the shortest and the longest time to answer. members: those that are not gone, this node included."""
    least = _FACTOR * max(100, hundredths_of_log10(max(1, members))) * interval_ns // 100
    return least, _MAX_FACTOR * least


class Suspicion:
    """One suspect as one node sees it.

    accusers: hashes of the ids of those who suspect it. deadline_ns: when it counts as dead.
    """

    __slots__ = ("_ceiling_ns", "_expected", "_least_ns", "_most_ns", "accusers", "deadline_ns", "started_ns")

    def __init__(
        self, now_ns: int, accusers: tuple[int, ...], *, members: int, interval_ns: int, ceiling_ns: int
    ) -> None:
        self.started_ns = now_ns
        self._least_ns, self._most_ns = limits_ns(members, interval_ns)
        self._ceiling_ns = ceiling_ns
        self._expected = CONFIRMATIONS if members - 3 >= CONFIRMATIONS else 0
        self.accusers: tuple[int, ...] = accusers[:ACCUSERS_MAX]
        self.deadline_ns = 0
        self._plan()

    @property
    def settled_ns(self) -> int:
        """From here on a report of death is believed at once."""
        return self.started_ns + min(self._least_ns, self._ceiling_ns)

    def confirm(self, accusers: tuple[int, ...]) -> bool:
        """Take further accusers in; return whether one of them is new and counts."""
        if accusers == self.accusers:
            return False
        room = ACCUSERS_MAX - len(self.accusers)
        fresh = [accuser for accuser in accusers if accuser not in self.accusers] if room > 0 else []
        if not fresh:
            return False
        self.accusers = (*self.accusers, *fresh[:room])
        self._plan()
        return True

    def reported_dead(self) -> None:
        """Somebody holds it dead: no longer than the shortest time."""
        self.deadline_ns = min(self.deadline_ns, self.settled_ns)

    def shift(self, by_ns: int) -> None:
        """This node stood still so long; nobody can have answered it in that time."""
        self.started_ns += by_ns
        self.deadline_ns += by_ns

    def _plan(self) -> None:
        confirmed = max(0, len(self.accusers) - 1)
        shrink = 1000 if self._expected == 0 else _SHRINK[confirmed]
        limit = self._most_ns - shrink * (self._most_ns - self._least_ns) // 1000
        deadline = self.started_ns + min(limit, self._ceiling_ns)
        self.deadline_ns = min(self.deadline_ns, deadline) if self.deadline_ns else deadline
