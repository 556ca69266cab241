"""How figures are summed up: medians with what they vary between, nearest-rank percentiles, budgets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from relaymesh.core.percentile import percentiles

__all__ = ["budget", "paired_ratio", "quantiles", "rounded", "spread"]

NS_IN_MS = 1_000_000


def rounded(value: float) -> float:
    """Cut a figure to four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return median, smallest and largest of the rounds."""
    return {
        "median": rounded(statistics.median(values)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
        "rounds": len(values),
    }


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the spread of ours / theirs, round by round: what slows down a whole round falls out of it."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def quantiles(samples_ns: Sequence[int]) -> dict[str, Any]:
    """Return p50, p99, smallest and largest in milliseconds; nearest rank."""
    p50, p99 = percentiles(samples_ns, (50, 99))
    return {
        "p50_ms": rounded(p50 / NS_IN_MS),
        "p99_ms": rounded(p99 / NS_IN_MS),
        "min_ms": rounded(min(samples_ns) / NS_IN_MS),
        "max_ms": rounded(max(samples_ns) / NS_IN_MS),
        "samples": len(samples_ns),
    }


def budget(what: str, measured: float, bound: Literal["at_least", "at_most"], limit: float) -> dict[str, Any]:
    """Return one line of the budget table with the verdict on it."""
    met = measured >= limit if bound == "at_least" else measured <= limit
    return {"what": what, "measured": rounded(measured), bound: limit, "met": met}
