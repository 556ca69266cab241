"""How long a store lets a disk rest that refused it.

    WELL ──refused──▶ RESTING for RETRY_NS[0] ──refused──▶ … [1] … ──refused──▶ … [last] …
      ▲                                                                            │
      └───────────────────────────── a commit ─────────────────────────────────────┘

The disk may be full for hours, so there is a longest rest, and not every refusal is worth a line in the log.
"""

from __future__ import annotations

from typing import Final

__all__ = ["RETRY_NS", "Rest"]

RETRY_NS: Final = (100_000_000, 250_000_000, 500_000_000, 1_000_000_000)
"""How long a refused write waits before it is tried again, by how many refusals there were in a row."""


class Rest:
    """The rest of one store. begun: the last that was tried was refused."""

    def __init__(self) -> None:
        self.begun = False
        self._refusals = 0
        self._until_ns = 0

    def refused(self, now_ns: int) -> int:
        """Return how long to rest."""
        delay_ns = RETRY_NS[min(self._refusals, len(RETRY_NS) - 1)]
        self._refusals += 1
        self.begun = True
        self._until_ns = now_ns + delay_ns
        return delay_ns

    @property
    def worth_saying(self) -> bool:
        """Whether the last refusal was the 1st, 2nd, 3rd, 5th, 9th, … in a row."""
        before = self._refusals - 1
        return before & (before - 1) == 0

    def lasts(self, now_ns: int) -> bool:
        """Return whether it is too early to try again what nobody waits for."""
        return self.begun and self._until_ns > now_ns

    def over(self) -> None:
        """It was tried, and not refused."""
        self._refusals = 0
        self.begun = False

    def break_off(self) -> None:
        """Try again now, and rest as long as before should it be refused once more."""
        self.begun = False
