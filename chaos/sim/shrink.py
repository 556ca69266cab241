"""The shortest fault list that still breaks something: delta debugging.

Source: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002). Ours only takes away, in
halves, quarters and so on down to single faults, until no single one can go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

__all__ = ["RUNS_MAX", "shortest"]

RUNS_MAX: Final = 200
"""Runs that one search makes at most; then what it has is the answer."""

T = TypeVar("T")


def shortest(items: Sequence[T], fails: Callable[[tuple[T, ...]], bool], *, runs_max: int = RUNS_MAX) -> tuple[T, ...]:
    """Return a part of the items, in their order, that still fails and of which none can be left out.

    items must fail as they are.
    """
    kept = tuple(items)
    runs = 0
    pieces = 2
    while kept:
        size = -(-len(kept) // pieces)
        for at in range(0, len(kept), size):
            without = kept[:at] + kept[at + size :]
            if runs >= runs_max:
                return kept
            runs += 1
            if fails(without):
                kept = without
                pieces = max(2, pieces - 1)
                break
        else:
            if size == 1:
                return kept
            pieces = min(len(kept), pieces * 2)
    return kept
