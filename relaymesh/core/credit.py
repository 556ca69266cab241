"""How many steps may be sent to one worker process before it has ended the one it runs.

Sending the next step only after the last result costs a round trip per step, which is most of the time of a short one.
Sending ahead hides it, but a step that waits behind a slow one is a ready step that waits although another process may
be free. So credit is given for speed that was shown, and taken back at once::

                  mean duration short (EWMA)
    ONE AT A TIME ─────────────────────────▶ AHEAD: credit = 10 ms / mean, 2 to 64
          ▲                                     │
          ├── a step took longer than 10 ms ────┤
          └── the running step is 10 ms old ────┘ ── the oldest in line waits 50 ms ──▶ revoke what waits

With at most 10 ms of work ahead, and what waits 50 ms revoked, no ready step waits 100 ms while a slot is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["CREDIT_MAX", "OVERDUE_MS", "WINDOW_MS", "Ahead", "Pace", "credit", "observed", "overdue", "overdue_at_ns"]

WINDOW_MS: Final = 10
"""How much work, by the agent's recent durations, may lie in front of a worker process."""

CREDIT_MAX: Final = 64

OVERDUE_MS: Final = 50
"""A step that was sent ahead and has waited this long is taken back."""

_NS_PER_MS: Final = 1_000_000
_WINDOW_NS: Final = WINDOW_MS * _NS_PER_MS
_WEIGHT: Final = 8
"""A new duration counts for an eighth of the mean: a burst of some twenty short steps restores the credit."""
_SLOW_NS_MAX: Final = 10 * _WINDOW_NS
"""A mean above this is kept at this, so that an agent that slept an hour once is trusted again after some twenty."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an agent's steps ended lately on one worker process.

    mean_ns: exponentially weighted mean duration; None before the first step ended.
    """

    mean_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Ahead:
    """A step that was sent to a worker process and has not started there."""

    row_id: int
    sent_at_ns: int


def observed(pace: Pace, duration_ns: int) -> Pace:
    """Return the pace after one more step ended; a step above the window counts in full, not as an eighth."""
    duration_ns = max(0, duration_ns)
    mean_ns = duration_ns if pace.mean_ns is None else pace.mean_ns + (duration_ns - pace.mean_ns) // _WEIGHT
    if duration_ns > _WINDOW_NS:
        mean_ns = max(mean_ns, duration_ns)
    return Pace(min(mean_ns, _SLOW_NS_MAX))


def credit(pace: Pace, running_for_ns: int = 0) -> int:
    """Return how many steps a worker process may have at a time, the running one included: 1 to 64.

    running_for_ns: for how long its current step has been running; 0 when it runs none.
    """
    if pace.mean_ns is None or running_for_ns > _WINDOW_NS:
        return 1
    return max(1, min(CREDIT_MAX, _WINDOW_NS // max(1, pace.mean_ns)))


def overdue_at_ns(waiting: Sequence[Ahead]) -> int | None:
    """Return when ``overdue`` will have something to say unless a step starts before; None when nothing waits."""
    return waiting[0].sent_at_ns + OVERDUE_MS * _NS_PER_MS if waiting else None


def overdue(now_ns: int, waiting: Sequence[Ahead]) -> tuple[int, ...]:
    """Return the row ids to revoke from a worker process.

    waiting: what was sent ahead and has not started, in the order of sending. Once the first of them is overdue all are
    returned: they stand behind the same slow step, and some other process may take them now.
    """
    due_ns = overdue_at_ns(waiting)
    if due_ns is None or now_ns < due_ns:
        return ()
    return tuple(ahead.row_id for ahead in waiting)
