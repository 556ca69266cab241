"""Nearest-rank percentiles, as every report of latencies uses them.

    values sorted ascending:  v1 v2 ... vn     percentile p = v[ceil(p * n / 100)]

The result is always one of the values, never a mean of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["percentiles"]


def percentiles(values: Iterable[int], percents: Sequence[int]) -> tuple[int, ...]:
    """Return several percentiles of the same values, in the order asked for; 0 without values, which need no order.

    Raises ValueError when a percent is not within 1..100.
    """
    for percent in percents:
        if not 1 <= percent <= 100:
            raise ValueError(f"percent must be within 1..100, not {percent}")
    ordered = sorted(values)
    if not ordered:
        return (0,) * len(percents)
    return tuple(ordered[(percent * len(ordered) - 1) // 100] for percent in percents)
