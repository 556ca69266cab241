"""When the StoreActor looks by itself for commits of others and for what became due.

    news ──▶ every POLL_NS ──QUIET_LOOKS without any──▶ every IDLE_POLL_NS, and at the instant of what is due before
                  ▲                                         │
                  └── a hint, a commit of our own, news ────┘

Whoever commits for others sends a hint, so looks only find what was hinted at in vain. A wake-up of two threads costs
more than all that an idle node does then: see docs/decisions/idle-looks.md.
"""

from __future__ import annotations

from typing import Final

from actors.address import Address
from actors.timer import Timers
from relaymesh.wire.store import PollStore

__all__ = ["IDLE_POLL_NS", "POLL_NS", "QUIET_LOOKS", "Looks"]

POLL_NS: Final = 80_000_000
"""How often the node looks for commits of others and for what became due."""
IDLE_POLL_NS: Final = 250_000_000
"""The same while nothing goes on."""
QUIET_LOOKS: Final = 6
"""After so many looks that found nothing they come less often."""
_AFTER_NS: Final = 1_000_000


class Looks:
    """The timers of one StoreActor."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._quiet = 0
        self._period_ns = 0
        self._address: Address | None = None

    def begin(self, address: Address) -> None:
        """Start; ``address`` is sent PollStore."""
        self._address = address
        self._every(POLL_NS)

    def end(self) -> None:
        """Stop."""
        if self._address is not None:
            self._timers.cancel(self._address, "poll")
            self._timers.cancel(self._address, "due")

    def stir(self) -> None:
        """Look often again: something happened."""
        self._quiet = 0
        if self._period_ns != POLL_NS:
            self._every(POLL_NS)

    def looked(self, news: bool, due_in_ms: int | None) -> None:
        """Take notice of a look; due_in_ms: until something is due by the wall clock, None when nothing is known."""
        if news:
            self.stir()
            return
        self._quiet += 1
        if self._quiet == QUIET_LOOKS:
            self._every(IDLE_POLL_NS)
        due_ns = None if due_in_ms is None else due_in_ms * 1_000_000
        if due_ns is not None and 0 <= due_ns < self._period_ns and self._address is not None:
            self._timers.after(due_ns + _AFTER_NS, self._address, PollStore(), key="due")

    def _every(self, period_ns: int) -> None:
        self._period_ns = period_ns
        if self._address is not None:
            self._timers.every(period_ns, self._address, PollStore(), key="poll")
