"""Latencies as counts in narrow buckets: what a root can say about its latest steps without reading one of them.

    0 … 255 ms    a bucket for each millisecond
    above         128 buckets from each power of two to the next, so one is less than 0.8 % wide

A percentile is the upper bound of the bucket that it falls into. Buckets of several spans of time add up; the spans
are what is forgotten when there are enough newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

__all__ = ["LATENCY_MS_MAX", "SPAN_MS", "WINDOW_STEPS", "bucket_of", "bucket_percentiles", "bucket_upper_ms", "latest"]

SPAN_MS: Final = 10_000
"""Steps that ended in the same span are counted, and forgotten, together."""
WINDOW_STEPS: Final = 5_000
"""The window is the newest spans that have so many steps in all; fewer only while there are no more."""
LATENCY_MS_MAX: Final = 140_737_488_355_328
"""What takes longer is counted as this: more than any clock of ours can tell apart."""

_SUB_BITS: Final = 7


def bucket_of(latency_ms: int) -> int:
    """Return the number of the bucket; numbers rise with the latency. One below 0, by a clock set back, counts as 0."""
    value = min(max(0, latency_ms), LATENCY_MS_MAX)
    shift = max(0, value.bit_length() - _SUB_BITS - 1)
    return (shift << _SUB_BITS) + (value >> shift)


def bucket_upper_ms(bucket: int) -> int:
    """Return the largest latency that falls into a bucket."""
    shift = max(0, (bucket >> _SUB_BITS) - 1)
    return ((bucket - (shift << _SUB_BITS) + 1) << shift) - 1


def bucket_percentiles(counts: Mapping[int, int], percents: Sequence[int]) -> tuple[int, ...]:
    """Return nearest-rank percentiles of counts by bucket, in ms and in the order asked for; 0 of none.

    Raises ValueError when a percent is not within 1..100.
    """
    for percent in percents:
        if not 1 <= percent <= 100:
            raise ValueError(f"percent must be within 1..100, not {percent}")
    total = sum(counts.values())
    found = []
    for percent in percents:
        rank, seen, at = -(-percent * total // 100), 0, 0
        for bucket in sorted(counts):
            seen += counts[bucket]
            if rank and seen >= rank:
                at = bucket_upper_ms(bucket)
                break
        found.append(at)
    return tuple(found)


def latest(rows: Iterable[tuple[int, int, int]]) -> tuple[dict[int, int], int | None]:
    """Return the counts by bucket of the window, and its oldest span; None when nothing is counted.

    rows: span, bucket and count, newest span first; read no further than the window goes.
    """
    counts: dict[int, int] = {}
    steps, oldest = 0, None
    for span, bucket, count in rows:
        if span != oldest:
            if steps >= WINDOW_STEPS:
                break
            oldest = span
        counts[bucket] = counts.get(bucket, 0) + count
        steps += count
    return counts, oldest
