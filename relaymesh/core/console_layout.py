"""Which panes the console shows, how many lines each gets, and which of its rows: by size of the terminal and focus.

    line 1, 2          title, own health
    panes              in the order of ``Pane``; each one line of title, then its rows
    last two lines     what happened or is asked; keys

The pane with the focus is always there. The others give way when there is no room, the least telling first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["FRAME_LINES", "NARROW", "WIDE", "Pane", "Placed", "Width", "plan", "scroll", "width_of"]

FRAME_LINES: Final = 4
NARROW: Final = 60
"""Columns below which only the most telling columns of a table are shown."""
WIDE: Final = 110
"""Columns from which all are."""


class Pane(Enum):
    """What there is to see, from top to bottom."""

    MEMBERS = "members"
    QUEUE = "queue"
    RUNNING = "running"
    TROUBLE = "retries and dead letters"
    ALERTS = "alerts"
    NEWS = "what happened"


class Width(Enum):
    """How much a row may tell."""

    NARROW = 0
    NORMAL = 1
    WIDE = 2


@dataclass(frozen=True, slots=True)
class Placed:
    """A pane and its lines, the one of its title among them."""

    pane: Pane
    lines: int


_LEAST: Final = {Pane.MEMBERS: 3, Pane.QUEUE: 5, Pane.RUNNING: 3, Pane.TROUBLE: 3, Pane.ALERTS: 2, Pane.NEWS: 2}
# Who comes first when there is not room for all.
_RANK: Final = (Pane.QUEUE, Pane.MEMBERS, Pane.RUNNING, Pane.TROUBLE, Pane.ALERTS, Pane.NEWS)


def width_of(columns: int) -> Width:
    """Return how much a row may tell on a terminal of so many columns."""
    if columns < NARROW:
        return Width.NARROW
    return Width.WIDE if columns >= WIDE else Width.NORMAL


def plan(height: int, wanted: Mapping[Pane, int], focus: Pane) -> tuple[Placed, ...]:
    """Return the panes that fit between title and footer, from top to bottom.

    wanted: lines that each would fill, its title among them; none gets more than that, or than its least.
    """
    room = max(1, height - FRAME_LINES)
    lines = {focus: min(room, _LEAST[focus])}
    room -= lines[focus]
    for pane in _RANK:
        least = min(_LEAST[pane], max(2, wanted.get(pane, 0)))
        if pane is not focus and least <= room:
            lines[pane] = least
            room -= least
    # The focus grows first; then all others, a line each in turn.
    more = min(room, max(0, wanted.get(focus, 0) - lines[focus]))
    lines[focus] += more
    room -= more
    hungry = [pane for pane in _RANK if pane in lines and wanted.get(pane, 0) > lines[pane]]
    while room > 0 and hungry:
        for pane in hungry:
            if room > 0:
                lines[pane] += 1
                room -= 1
        hungry = [pane for pane in hungry if wanted.get(pane, 0) > lines[pane]]
    return tuple(Placed(pane, lines[pane]) for pane in Pane if pane in lines)


def scroll(selected: int, count: int, room: int) -> int:
    """Return the first of the rows that are shown, so that the selected one is among them and no room is wasted."""
    if room <= 0 or count <= room:
        return 0
    return max(0, min(selected - room // 2, count - room))
