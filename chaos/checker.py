"""Invariants of membership and ownership, checked over a history.

I1  what was submitted is in every final read                 I2  one outcome per (step, cluster epoch, lease epoch)
I3  epochs and generations never fall                         I4  no write below an epoch that its node knows of
I5  leases of one step do not overlap                         I6  what a node holds of a member only grows
I7  in the end all live nodes hold all live nodes ALIVE       I8  and all that are down DEAD or LEFT, in time
I9  no DEAD about a node that no fault touched                I10 no recovery before its dwell time
I11 no collection above its cap                               I12 after the faults every step comes to its end
I13 no packet of an intruder is believed                      I14 some order explains what nodes hear of a step
I15 a refused result is recorded, never silent
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chaos.finding import Bounds, Broken, Check
from chaos.history import Event
from chaos.membership_check import MEMBERSHIP
from chaos.ownership_check import OWNERSHIP

__all__ = ["BROKEN_MAX", "INVARIANTS", "Bounds", "Broken", "check"]

BROKEN_MAX: Final = 100
"""Violations that are listed, per invariant."""

INVARIANTS: Final[dict[str, Check]] = dict(
    sorted({**OWNERSHIP, **MEMBERSHIP}.items(), key=lambda named: int(named[0][1:]))
)


def check(events: Sequence[Event], bounds: Bounds | None = None) -> list[Broken]:
    """Return what is broken, in the order of the invariants."""
    broken: list[Broken] = []
    for invariant, find in INVARIANTS.items():
        found = [Broken(invariant, at, what) for at, what in find(events, bounds or Bounds())]
        broken += found[:BROKEN_MAX]
    return broken
