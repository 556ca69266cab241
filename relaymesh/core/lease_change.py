"""A lease timeout that changes while nodes run and each notices at its own time.

    value  ────────15 s────────┐
                               └────────4 s──────────────
    owners ────────15 s────────┐                              shorter: at once
                               └────────4 s──────────────
    judges ────────15 s─────────────────────┐                 shorter: after the hold
                               │←── hold ──→└──4 s────────

Owners must believe in a lease no longer than any judge waits for it, or a live step is taken from its node. So an owner
goes by the shortest value of late, a judge by the longest; a value is of late until the hold has passed since it was
replaced. The hold is long enough for every node to have noticed, and for what the old value had confirmed to have run
out.
"""

from __future__ import annotations

from typing import Final

__all__ = ["HOLD_MS_MIN", "LeaseTimeouts"]

HOLD_MS_MIN: Final = 30_000
"""Three times the usual period in which nodes look at their settings."""
_PERIODS: Final = 3
_NS_PER_MS: Final = 1_000_000
_RECENT_MAX: Final = 64


class LeaseTimeouts:
    """What one process goes by. lease_timeout_ms: at start; reload_ms: how often nodes look at the settings."""

    def __init__(self, lease_timeout_ms: int, *, reload_ms: int) -> None:
        self._value_ms = lease_timeout_ms
        self._hold_ms = max(HOLD_MS_MIN, _PERIODS * reload_ms)
        # Former values with the time until which each counts.
        self._recent: list[tuple[int, int]] = []

    def change(self, now_ns: int, lease_timeout_ms: int) -> None:
        """The setting has another value now."""
        if lease_timeout_ms == self._value_ms:
            return
        former = [until for _, until in self._recent]
        until_ns = max([now_ns + max(self._hold_ms, self._value_ms) * _NS_PER_MS, *former])
        self._recent = [(value, until) for value, until in self._recent if until > now_ns and value != self._value_ms]
        self._recent.append((self._value_ms, until_ns))
        if len(self._recent) > _RECENT_MAX:  # of many values in half a minute only the outermost matter
            values = [value for value, _ in self._recent]
            self._recent = [(min(values), until_ns), (max(values), until_ns)]
        self._value_ms = lease_timeout_ms

    def owner_ms(self, now_ns: int) -> int:
        """How long an owner may believe in a lease without renewal."""
        return min([self._value_ms, *self._of_late(now_ns)])

    def judge_ms(self, now_ns: int) -> int:
        """How long a judge waits for a renewal."""
        return max([self._value_ms, *self._of_late(now_ns)])

    def settles_at_ns(self, now_ns: int) -> int | None:
        """When the answers change next although the setting does not, or None."""
        return min((until for _, until in self._recent if until > now_ns), default=None)

    def _of_late(self, now_ns: int) -> list[int]:
        return [value for value, until in self._recent if until > now_ns]
