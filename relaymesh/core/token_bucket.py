"""How many starts a rate allows now: a token bucket in whole numbers, exact over any span of time.

    level ── grows by `count` units each ms ──▶ at most burst x period_ms        one start costs period_ms units

Units instead of tokens, so that nothing is rounded: 7 a minute for a year is 7 times the minutes. The clock may jump.
Forward, a bucket is full at most, so no jump gives a burst above its size. Back, it is to be kept as ``settled`` says:
it goes on with the level that it had, and nobody waits for the old time to come again.
"""

from __future__ import annotations

from dataclasses import dataclass

from relaymesh.core.limit import BURST_MAX, RATE_COUNT_MAX, RATE_PERIOD_MS_MAX

__all__ = ["Bucket", "Rate", "available", "due_in_ms", "full", "settled", "spend"]


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` starts in each ``period_ms``, and at most ``burst`` at once after a pause.

    Raises ValueError when one of them is below 1 or above its bound in ``relaymesh.core.limit``.
    """

    count: int
    period_ms: int
    burst: int

    def __post_init__(self) -> None:
        for name, most in (("count", RATE_COUNT_MAX), ("period_ms", RATE_PERIOD_MS_MAX), ("burst", BURST_MAX)):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise ValueError(f"{name} of a rate is {value}: use 1 to {most:,}")


@dataclass(frozen=True, slots=True)
class Bucket:
    """What was left at an instant, in units."""

    level: int
    at_ms: int


def full(rate: Rate, now_ms: int) -> Bucket:
    """Return the bucket of a rate that nothing was taken from yet."""
    return Bucket(rate.burst * rate.period_ms, now_ms)


def available(rate: Rate, bucket: Bucket, now_ms: int) -> int:
    """Return how many starts the bucket has now."""
    return _level(rate, bucket, now_ms) // rate.period_ms


def settled(bucket: Bucket, now_ms: int) -> Bucket:
    """Return the bucket to keep: one that is ahead of a clock that was set back grows from now on."""
    return bucket if bucket.at_ms <= now_ms else Bucket(bucket.level, now_ms)


def spend(rate: Rate, bucket: Bucket, now_ms: int, starts: int) -> Bucket:
    """Return the bucket after so many starts.

    Raises ValueError for more than there are: the caller has asked ``available`` in the same transaction.
    """
    left = _level(rate, bucket, now_ms) - starts * rate.period_ms
    if starts < 0 or left < 0:
        raise ValueError(f"{starts} starts are more than the bucket has")
    return Bucket(left, now_ms)


def due_in_ms(rate: Rate, bucket: Bucket, now_ms: int) -> int:
    """Return how long until the bucket has a start, 0 when it has one."""
    missing = rate.period_ms - _level(rate, bucket, now_ms)
    return max(0, -(-missing // rate.count))


def _level(rate: Rate, bucket: Bucket, now_ms: int) -> int:
    grown = max(0, now_ms - bucket.at_ms) * rate.count
    return min(max(0, bucket.level) + grown, rate.burst * rate.period_ms)
