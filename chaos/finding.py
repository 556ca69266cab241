"""What a check of a history finds, and the times that it goes by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from chaos.history import Event

__all__ = ["Bounds", "Broken", "Check", "Finding", "bounds_of"]


class Broken(NamedTuple):
    """One violation. event: index in the history."""

    invariant: str
    event: int
    what: str


class Bounds(NamedTuple):
    """suspect_dwell_ms, dead_dwell_ms: shortest stays in the state shown. down_ms: a node that has been down for so
    long must be known as gone. live_ms: so long after the last fault every step must have come to its end. exclusive:
    whether leases must not overlap at all (quorum mode, one database).
    """

    suspect_dwell_ms: int = 5_000
    dead_dwell_ms: int = 30_000
    down_ms: int = 60_000
    live_ms: int = 60_000
    exclusive: bool = True


def bounds_of(events: Iterable[Event]) -> Bounds:
    """Return the bounds that a history brings along, those of the simulator where it brings none."""
    found = Bounds()
    for event in events:
        if event.f == "bounds":
            kinds = {name: type(default) for name, default in Bounds._field_defaults.items()}
            # What another version knows besides is left out.
            found = found._replace(**{name: v for name, v in event.value.items() if type(v) is kinds.get(name)})
    return found


Finding = tuple[int, str]
"""Index of the event, and what is wrong with it."""
Check = Callable[[Sequence[Event], Bounds], list[Finding]]
