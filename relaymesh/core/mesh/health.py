"""How far this node trusts its own judgement: Lifeguard's local health, 0 (well) to 7.

    answered probe ──▶ -1      unanswered, helpers silent ──▶ +1 each      had to refute, woke up late ──▶ +1

Each point makes the node ask more slowly. When most of its last probes failed, it is more likely that this node is cut
off than that all others died: then it makes no verdicts for a while (``frozen``).

Source: Lifeguard (Dadgar, Phillips, Currey 2017), section IV-A. The freeze is ours.
"""

from __future__ import annotations

from typing import Final

__all__ = ["HEALTH_MAX", "Health"]

HEALTH_MAX: Final = 7
_REMEMBERED: Final = 5
_MASK: Final = (1 << _REMEMBERED) - 1


class Health:
    """score: 0 is well. failures: the last probes, one bit each, 1 for a failure."""

    __slots__ = ("_frozen_since_ns", "failures", "patience_ns", "score")

    def __init__(self, patience_ns: int) -> None:
        """patience_ns: verdicts are never held back longer than this."""
        self.score = 0
        self.failures = 0
        self._frozen_since_ns = -1
        self.patience_ns = patience_ns

    def worse(self, points: int = 1) -> None:
        self.score = min(HEALTH_MAX, self.score + points)

    def succeeded(self) -> None:
        if self.score:
            self.score -= 1
        if self.failures:
            self.failures = (self.failures << 1) & _MASK
            if self.failures.bit_count() * 2 <= _REMEMBERED:
                self._frozen_since_ns = -1

    def failed(self, now_ns: int) -> None:
        """A probe of a member that was thought alive went unanswered."""
        self.failures = ((self.failures << 1) | 1) & _MASK
        if self._frozen_since_ns < 0 and self.failures.bit_count() * 2 > _REMEMBERED:
            self._frozen_since_ns = now_ns

    def frozen(self, now_ns: int) -> bool:
        """Whether verdicts are to be held back now."""
        return self._frozen_since_ns >= 0 and now_ns - self._frozen_since_ns < self.patience_ns
