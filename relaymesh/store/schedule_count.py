"""What schedules did, as counters of the root: raised in the transaction that fires, read for the metrics.

    schedule.fired, schedule.missed, schedule.skipped, schedule.failed      ticks, or spans of ticks passed over at once
    schedule.late.<number of the bucket>, schedule.late_ms                  how long after its tick a run was stored

Bounded whatever the number of schedules: none of them is named.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from relaymesh.store.counter import add_counter, counters

if TYPE_CHECKING:
    from relaymesh.store.schedule_fire import Fired

__all__ = ["LATE_BOUNDS_S", "active_schedules", "count_fired", "late_counts", "tick_counts"]

LATE_BOUNDS_S: Final = (0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0)
_PREFIX: Final = "schedule."
_RESULTS: Final = ("fired", "missed", "skipped", "failed")
_BOUNDS_MS: Final = tuple(round(bound * 1000) for bound in LATE_BOUNDS_S)


def count_fired(conn: sqlite3.Connection, ticks: Iterable[Fired], *, now_ms: int) -> None:
    """Count what became of ticks; the caller holds the transaction that made them."""
    found: Counter[str] = Counter()
    for tick in ticks:
        match tick.result:
            case "submitted":
                late_ms = max(0, now_ms - tick.tick_ms)
                found["fired"] += 1
                found[f"late.{bisect_left(_BOUNDS_MS, late_ms)}"] += 1
                found["late_ms"] += late_ms
            case "passed_over":
                found["missed" if tick.reason == "missed" else "skipped"] += 1
            case "failed":
                found["failed"] += 1
            case "queued":
                pass  # it is told of when it fires
    for name, amount in found.items():
        add_counter(conn, _PREFIX + name, amount)


def tick_counts(conn: sqlite3.Connection) -> dict[str, int]:
    """Return how often each result was, those that never were included."""
    counted = counters(conn)
    return {result: counted.get(_PREFIX + result, 0) for result in _RESULTS}


def late_counts(conn: sqlite3.Connection) -> tuple[tuple[int, ...], float]:
    """Return how many runs were late by each of ``LATE_BOUNDS_S``, and beyond, and their sum in seconds."""
    counted = counters(conn)
    buckets = tuple(counted.get(f"{_PREFIX}late.{number}", 0) for number in range(len(LATE_BOUNDS_S) + 1))
    return buckets, counted.get(f"{_PREFIX}late_ms", 0) / 1000


def active_schedules(conn: sqlite3.Connection) -> int:
    """Return how many schedules are active; a root holds 10,000 at most."""
    return int(conn.execute("SELECT count(*) FROM schedules WHERE state='ACTIVE'").fetchone()[0])
