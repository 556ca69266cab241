"""Counts of values up to fixed bounds: what a process can say about its latencies without keeping one of them.

    bounds   b1      b2      b3
    counts   ≤b1     ≤b2     ≤b3     more

The memory is that of the bounds, however many values come. A percentile is the upper bound of the bucket it falls into.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["COUNT_BOUNDS", "SECOND_BOUNDS", "Histogram"]

SECOND_BOUNDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""From a commit on a fast disk to an agent that takes minutes."""
COUNT_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
"""Sizes of batches."""


class Histogram:
    """One distribution. Written by one thread; a reader in another sees counts that are at most one value apart."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Raises ValueError when the bounds do not rise, or there are none."""
        if not bounds or any(high <= low for low, high in pairwise(bounds)):
            raise ValueError(f"bounds must rise, and there must be some: {bounds}")
        self.bounds = tuple(float(bound) for bound in bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count one value, so many times; one that equals a bound is in the bucket below it."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times
