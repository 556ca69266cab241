"""How long steps take from their making to their end, counted where they end; the rules are ``relaymesh.core.latency``.

    counters    step_ms.<span of 10 s>.<bucket>    steps that ended in the span and took so long

A commit of results adds to a handful of rows, whatever it holds, and nobody ever reads steps for a percentile. The time
at which a single-step task was made stands in its id, so its row need not be read for this.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence

from relaymesh.core.latency import SPAN_MS, bucket_of, bucket_percentiles, latest
from relaymesh.store.bulk import id_list, write_rows
from relaymesh.wire.store import SHAPE_SOLE, FinishedStep

__all__ = [
    "COUNTED_AT_ONCE",
    "LATENCY_NAMES",
    "Latencies",
    "LatencyTally",
    "count_latencies",
    "forget_latencies",
    "latencies",
    "latencies_of",
]

Latencies = Counter[tuple[int, int]]
"""Number of the span and of the bucket -> how many steps."""
LATENCY_NAMES = ("step_ms.", "step_ms/")
"""Names of counters from the first up to the second are buckets of latencies."""
COUNTED_AT_ONCE = 16
"""Results of one commit that are counted in it."""
_FORGET_MAX = 1_000

_ADD = """
INSERT INTO counters(name, value) SELECT column1, column2 FROM (VALUES {rows}) WHERE true
ON CONFLICT(name) DO UPDATE SET value=counters.value+excluded.value
"""
_ADD_ONE = """
INSERT INTO counters(name, value) VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value=counters.value+excluded.value
"""


def latencies_of(conn: sqlite3.Connection, ended: Sequence[FinishedStep], now_ms: int) -> Latencies:
    """Return how long steps took that have just ended. An id of another making counts not."""
    found: Counter[int] = Counter()
    # Steps that were submitted in the same millisecond, as those of a batch are, have the same digits.
    sole = Counter([step.lease.task_id[4:17] for step in ended if step.lease.shape == SHAPE_SOLE])
    for digits, count in sole.items():
        try:
            found[bucket_of(now_ms - int(digits.replace("-", ""), 16))] += count
        except ValueError:
            continue
    others = [step.lease.row_id for step in ended if step.lease.shape != SHAPE_SOLE]
    if others:
        made = conn.execute(
            "SELECT created_at_ms FROM steps WHERE id IN (SELECT value FROM json_each(?))", (id_list(others),)
        )
        found.update(bucket_of(now_ms - created_at_ms) for (created_at_ms,) in made)
    span = now_ms // SPAN_MS
    return Counter({(span, bucket): count for bucket, count in found.items()})


def count_latencies(conn: sqlite3.Connection, found: Latencies) -> None:
    """Add to the counts; the caller holds the write transaction."""
    rows = [(f"step_ms.{span:012d}.{bucket}", count) for (span, bucket), count in found.items()]
    write_rows(conn, _ADD, rows, one=_ADD_ONE)


def latencies(conn: sqlite3.Connection) -> tuple[int, int]:
    """Return the 95th and 99th percentile, in ms, from making to end of the latest steps that ended."""
    counts, _ = latest(_spans(conn))
    p95, p99 = bucket_percentiles(counts, (95, 99))
    return p95, p99


def forget_latencies(conn: sqlite3.Connection) -> int:
    """Remove what is older than the window, a bounded piece at a time; return how many rows."""
    _, oldest = latest(_spans(conn))
    if oldest is None:
        return 0
    return conn.execute(
        "DELETE FROM counters WHERE name IN (SELECT name FROM counters WHERE name>=? AND name<? ORDER BY name LIMIT ?)",
        (LATENCY_NAMES[0], f"step_ms.{oldest:012d}", _FORGET_MAX),
    ).rowcount


def _spans(conn: sqlite3.Connection) -> Iterator[tuple[int, int, int]]:
    rows = conn.execute("SELECT name, value FROM counters WHERE name>=? AND name<? ORDER BY name DESC", LATENCY_NAMES)
    for name, count in rows:
        _, span, bucket = name.split(".")
        yield int(span), int(bucket), count


class LatencyTally:
    """What one store has to count.

    later: a few results are counted with a later commit, which saves an idle node a statement and a page for each;
        whoever sets this calls ``count`` now and then. Until then they are in memory, and die with the process.
    """

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.later = False
        self._conn = conn
        self._uncounted: Latencies | None = None
        self._forgot_in_span = -1

    def ended(self, steps: Sequence[FinishedStep], now_ms: int) -> None:
        """These steps have just ended; part of their transaction."""
        found = latencies_of(self._conn, steps, now_ms)
        self._uncounted = found if self._uncounted is None else self._uncounted + found
        if len(steps) >= COUNTED_AT_ONCE or not self.later:
            self.count()

    def count(self) -> None:
        """Count steps that ended in earlier commits and were not counted in them; part of a transaction."""
        if self._uncounted:
            count_latencies(self._conn, self._uncounted)
            self._uncounted = None

    def forget(self, now_ms: int) -> None:
        """Remove counts that are older than the window; looks once in a span of time. Part of a transaction."""
        if now_ms // SPAN_MS != self._forgot_in_span:
            self._forgot_in_span = now_ms // SPAN_MS
            forget_latencies(self._conn)
