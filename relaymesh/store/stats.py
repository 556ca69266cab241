"""Counts and ages of a root, without reading its history row by row."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from relaymesh.core.disk import short_of_disk
from relaymesh.node_view import StatsOutcome
from relaymesh.store.admin import cluster_epoch
from relaymesh.store.count_cache import Counts, age_ms_max, is_large, keep_counts, kept_counts
from relaymesh.store.counter import OF_STATS, conflicts_by_type, counters
from relaymesh.store.disk import free_disk_bytes
from relaymesh.store.latency import latencies
from relaymesh.store.member import summary
from relaymesh.store.progress import oldest_ready_ms
from relaymesh.store.recount import WAITING_MAX, Recount, waiting
from relaymesh.store.root import DATABASE
from relaymesh.store.schema import RARE

__all__ = ["GROWTH_MAX", "PATIENCE_NS", "dead_letter_growth_1h", "queue_lag_ms", "ready_now", "stats"]

PATIENCE_NS = 40_000_000
"""How long a command counts where there is very much to count."""
GROWTH_MAX = 50_000
"""An alert is about thousands; more are not counted."""
_HOUR_MS = 3_600_000


def stats(
    conn: sqlite3.Connection,
    root: Path,
    *,
    namespace: str,
    now_ms: int,
    min_free_disk_bytes: int = 0,
    gossip_signing: bool = False,
    patience_ns: int = PATIENCE_NS,
) -> StatsOutcome:
    """Return the counts of one scoped root. min_free_disk_bytes: the setting, 0 when nobody cares.

    patience_ns: how long it may count where there is very much to count.
    """
    counts = _counts(conn, root / DATABASE, now_ms, patience_ns)
    task_status, step_status, messages, lanes = counts.tasks, counts.steps, counts.messages, counts.lanes
    p95, p99 = latencies(conn)
    counted = counters(conn)
    conflicts = conflicts_by_type(conn, counted)
    mesh = summary(conn, now_ms=now_ms)
    free_bytes = free_disk_bytes(root)
    return StatsOutcome(
        task_status=task_status,
        step_status=step_status,
        message_state=messages,
        inbox_high=lanes.get("HIGH", 0),
        inbox_normal=lanes.get("NORMAL", 0),
        inbox_low=lanes.get("LOW", 0),
        processing_meta_files=messages.get("PROCESSING", 0),
        dead_meta_files=messages.get("DEAD", 0),
        retry_meta_files=messages.get("FAILED", 0),
        queue_lag_ms=queue_lag_ms(conn, now_ms),
        step_latency_p95_ms=p95,
        step_latency_p99_ms=p99,
        dead_letter_growth_1h=dead_letter_growth_1h(conn, now_ms),
        lease_conflict_total=sum(conflicts.values()),
        lease_conflict_1h=_count(conn, "lease_conflicts WHERE occurred_at_ms>=?", now_ms - _HOUR_MS),
        lease_conflict_by_type=conflicts,
        gossip_signing_enabled=int(gossip_signing),
        cluster_epoch=cluster_epoch(conn),
        mesh_total_nodes=mesh.total,
        mesh_alive_nodes=mesh.alive,
        mesh_suspect_nodes=mesh.suspect,
        mesh_dead_nodes=mesh.dead,
        mesh_running_by_alive_owners=mesh.running_by_alive,
        mesh_running_by_suspect_owners=mesh.running_by_suspect,
        mesh_running_by_dead_owners=mesh.running_by_dead,
        mesh_running_by_unknown_owners=mesh.running_by_unknown,
        mesh_oldest_dead_node_age_ms=mesh.oldest_dead_age_ms,
        gossip_convergence_seconds=mesh.spread_ms // 1000,
        disk_free_bytes=free_bytes,
        min_free_disk_bytes=min_free_disk_bytes,
        disk_pressure=int(short_of_disk(free_bytes, min_free_disk_bytes)),
        namespace=namespace,
        counts_age_ms=max(0, now_ms - counts.at_ms),
        counts_at_least=counts.at_least,
        **{field: counted.get(name, 0) for field, name in OF_STATS.items()},
    )


def _counts(conn: sqlite3.Connection, database: Path, now_ms: int, patience_ns: int) -> Counts:
    """Return how many rows there are by state: of this moment, or where that is very much, what a node keeps counted.

    Where nobody has counted lately it counts for ``patience_ns``; what cannot be counted in that time is answered by an
    older count, and if there is none either by what there is at least.
    """
    large = is_large(conn)
    kept = kept_counts(database, now_ms) if large else None
    # Twice as long as a node lets them be, so that nobody counts beside it.
    if kept is not None and now_ms - kept.at_ms <= 2 * age_ms_max(kept.took_ms):
        return kept
    until_ns = time.monotonic_ns() + patience_ns
    count = Recount(conn)
    while count.piece():
        if large and time.monotonic_ns() >= until_ns:
            break
    if not count.done and kept is not None:
        return kept
    lanes = waiting(conn)
    counts = count.counts(now_ms, lanes=lanes, lanes_whole=all(n < WAITING_MAX for n in lanes.values()))
    if large and not counts.at_least:
        keep_counts(database, counts)
    return counts


def ready_now(conn: sqlite3.Connection, database: Path, now_ms: int) -> dict[str, int]:
    """Return how many steps are ready, by priority: of this moment, or where that is very much, as last counted."""
    lanes = waiting(conn)
    if all(n < WAITING_MAX for n in lanes.values()):
        return lanes
    kept = kept_counts(database, now_ms)
    return lanes if kept is None else {name: max(n, kept.lanes.get(name, 0)) for name, n in lanes.items()}


def dead_letter_growth_1h(conn: sqlite3.Connection, now_ms: int) -> int:
    """Return how many tasks in DEAD_LETTER changed within the last hour, counted no further than ``GROWTH_MAX``."""
    recent = f"SELECT 1 FROM tasks WHERE {RARE} AND status='DEAD_LETTER' AND updated_at_ms>=? LIMIT ?"
    return _count(conn, f"({recent})", now_ms - _HOUR_MS, GROWTH_MAX)


def _count(conn: sqlite3.Connection, what: str, *values: object) -> int:
    return int(conn.execute(f"SELECT count(*) FROM {what}", values).fetchone()[0])


def queue_lag_ms(conn: sqlite3.Connection, now_ms: int) -> int:
    """Return the age of the oldest step that could run now or waits for its retry, 0 if there is none."""
    times = list(oldest_ready_ms(conn).values())
    (retrying,) = conn.execute(
        "SELECT min(created_at_ms) FROM steps INDEXED BY steps_retrying WHERE status='RETRYING'"
    ).fetchone()
    if retrying is not None:
        times.append(int(retrying))
    return max(0, now_ms - min(times)) if times else 0
