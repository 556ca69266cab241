"""When a node looks by itself, for what nobody has told it.

The store looks for commits of others, and for what became due:

    OFTEN, every POLL_NS ──QUIET_LOOKS without news──▶ RARELY, every IDLE_POLL_NS
          ▲                                               │
          └──── a hint, a commit of our own, news ────────┘

and in both at the instant of what is due before the next look. Whoever commits for others sends a hint, so looks only
find what was hinted at in vain. A wake-up of two threads costs more than all that an idle node does then: see
docs/decisions/idle-looks.md.

The inbox is looked at in even steps; some of them search for more, and after trouble some are left out:

    LOOK ──trouble──▶ RESTING ──REST_TICKS──▶ LOOK
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ADOPT_TICKS",
    "CHECKPOINT_NS",
    "IDLE_POLL_NS",
    "INBOX_LOOK_NS",
    "POLL_NS",
    "QUIET_LOOKS",
    "REPAIR_TICKS",
    "REST_TICKS",
    "VERIFY_NS",
    "Checkpoint",
    "InboxLook",
    "InboxLooks",
    "LookEvery",
    "LookIn",
    "StoreLooks",
    "VerifyLong",
    "next_due_ns",
]

POLL_NS: Final = 80_000_000
"""How often a store looks for commits of others and for what became due."""
IDLE_POLL_NS: Final = 250_000_000
"""The same while nothing goes on."""
QUIET_LOOKS: Final = 6
"""After so many looks that found nothing they come less often."""
VERIFY_NS: Final = 200_000_000
"""How often, at most, long-running steps are looked at because another process committed something."""
CHECKPOINT_NS: Final = 30_000_000_000
_AFTER_NS: Final = 1_000_000
"""What is due is looked at so much later: a timer is exact to the nanosecond, the wall clock to the millisecond."""

INBOX_LOOK_NS: Final = 250_000_000
ADOPT_TICKS: Final = 20
"""Looks at the inbox per search for files of dead processes."""
REPAIR_TICKS: Final = 240
"""Looks at the inbox per search for message files that are missing."""
REST_TICKS: Final = 4
"""Looks that are left out after trouble."""


def next_due_ns(now_ns: int, period_ns: int, *, since_ns: int = 0) -> int:
    """Return the first instant after now that is a whole number of periods after ``since_ns``.

    Without ``since_ns`` it is a whole period of the clock, so timers whose periods divide each other fall due together
    and share a wake-up, whenever they were set.
    """
    return since_ns + period_ns * ((now_ns - since_ns) // period_ns + 1)


@dataclass(frozen=True, slots=True)
class LookEvery:
    """Look at each whole period from now on, instead of at the former ones."""

    period_ns: int


@dataclass(frozen=True, slots=True)
class LookIn:
    """Look once more, then, instead of at the former such instant."""

    delay_ns: int


@dataclass(frozen=True, slots=True)
class VerifyLong:
    """Ask whether the steps that have run for long are still ours: others have committed something."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Copy the write-ahead log. idle: nothing went on since the last time, so a long one may be cut."""

    idle: bool


LookEffect = LookEvery | LookIn | VerifyLong | Checkpoint


class StoreLooks:
    """The looks of one store. Starts with ``begin``."""

    def __init__(self) -> None:
        self._quiet = 0
        self._period_ns = 0
        self._news = False
        self._unverified = False
        self._verify_at_ns = 0
        self._checkpoint_at_ns = 0
        self._wrote = False

    def begin(self, now_ns: int) -> LookEvery:
        """Return how often to look at first."""
        self._checkpoint_at_ns = now_ns + CHECKPOINT_NS
        return self._every(POLL_NS)

    def stirred(self) -> LookEvery | None:
        """Something happened, so more may: return how often to look now, None when that has not changed."""
        self._quiet = 0
        return None if self._period_ns == POLL_NS else self._every(POLL_NS)

    def wrote(self) -> None:
        """A transaction of our own has committed."""
        self._wrote = True

    def found_news(self) -> None:
        """Another process has committed. The look goes on, and may be broken off by an error."""
        self._news = self._unverified = True

    def looked(self, now_ns: int, *, due_in_ms: int | None) -> list[LookEffect]:
        """Take notice of a look that is over; return what else to do.

        due_in_ms: until something is due by the wall clock; not positive: it is due, None: nothing is known to be.
        """
        effects: list[LookEffect] = []
        if self._unverified and now_ns >= self._verify_at_ns:
            self._unverified = False
            self._verify_at_ns = now_ns + VERIFY_NS
            effects.append(VerifyLong())
        if self._news:
            self._news = False
            often = self.stirred()
            if often is not None:
                effects.append(often)
        else:
            self._quiet += 1
            if self._quiet == QUIET_LOOKS:
                effects.append(self._every(IDLE_POLL_NS))
            # What is overdue waits for a commit that takes it in, not for more looks.
            if due_in_ms is not None and 0 <= due_in_ms * 1_000_000 < self._period_ns:
                effects.append(LookIn(due_in_ms * 1_000_000 + _AFTER_NS))
        if now_ns >= self._checkpoint_at_ns:
            self._checkpoint_at_ns = now_ns + CHECKPOINT_NS
            effects.append(Checkpoint(idle=not self._wrote))
            self._wrote = False
        return effects

    def _every(self, period_ns: int) -> LookEvery:
        self._period_ns = period_ns
        return LookEvery(period_ns)


@dataclass(frozen=True, slots=True)
class InboxLook:
    """What one look at the inbox includes besides its lanes.

    adopts: a search for files of dead processes. repairs: one for message files that are missing.
    """

    adopts: bool
    repairs: bool


class InboxLooks:
    """The looks at one inbox, INBOX_LOOK_NS apart."""

    def __init__(self) -> None:
        self._ticks = 0
        self._rest = 0
        self._adopt_at = 1
        self._repair_at = REPAIR_TICKS

    @property
    def resting(self) -> bool:
        """Whether nothing is to be tried now."""
        return self._rest > 0

    def tick(self) -> InboxLook | None:
        """A period is over: return what to look at, None while resting. A search in a rest is made up for after it."""
        self._ticks += 1
        if self._rest:
            self._rest -= 1
            return None
        look = InboxLook(adopts=self._ticks >= self._adopt_at, repairs=self._ticks >= self._repair_at)
        if look.adopts:
            self._adopt_at = self._ticks + ADOPT_TICKS
        if look.repairs:
            self._repair_at = self._ticks + REPAIR_TICKS
        return look

    def adopted(self) -> None:
        """The search found files, and there may be more: the next look searches again."""
        self._adopt_at = self._ticks + 1

    def trouble(self) -> None:
        """The store or the disk refused: rest."""
        self._rest = REST_TICKS
