"""Counts and ages of a root, without reading its history row by row."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from pathlib import Path

from relaymesh.core.disk import short_of_disk
from relaymesh.node_view import StatsOutcome
from relaymesh.store.admin import cluster_epoch
from relaymesh.store.count_cache import Counts, is_large, keep_counts, kept_counts
from relaymesh.store.counter import OF_STATS, conflicts_by_type, counters
from relaymesh.store.disk import free_disk_bytes
from relaymesh.store.latency import latencies
from relaymesh.store.member import summary
from relaymesh.store.progress import oldest_ready_ms
from relaymesh.store.root import DATABASE
from relaymesh.store.row_count import attempts_by_outcome, row_counts, total
from relaymesh.store.schema import KEYED_READY, PLAIN_READY, RARE

__all__ = ["GROWTH_MAX", "dead_letter_growth_1h", "queue_lag_ms", "stats", "waiting"]

_WAITING = f"SELECT priority, count(*) FROM steps INDEXED BY steps_ready WHERE {PLAIN_READY} GROUP BY priority"
_WAITING_KEYED = f"SELECT priority, count(*) FROM steps INDEXED BY steps_keyed WHERE {KEYED_READY} GROUP BY priority"
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
) -> StatsOutcome:
    """Return the counts of one scoped root. min_free_disk_bytes: the setting, 0 when nobody cares."""
    counts = _counts(conn, root / DATABASE, now_ms)
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
        **{field: counted.get(name, 0) for field, name in OF_STATS.items()},
    )


def _counts(conn: sqlite3.Connection, database: Path, now_ms: int) -> Counts:
    """Return how many rows there are by state: of this moment, or where that is very much, of a while ago."""
    large = is_large(conn)
    kept = kept_counts(database, now_ms) if large else None
    if kept is not None:
        return kept
    began_ns = time.monotonic_ns()
    rows = row_counts(conn)
    lanes, steps = waiting(conn), _step_counts(conn, rows)
    counts = Counts(
        tasks=_task_counts(conn, rows),
        steps=steps,
        messages=_message_states(conn, attempts_by_outcome(rows), steps, lanes),
        lanes=lanes,
        at_ms=now_ms,
        took_ms=(time.monotonic_ns() - began_ns) // 1_000_000,
    )
    if large:
        keep_counts(database, counts)
    return counts


def waiting(conn: sqlite3.Connection) -> dict[str, int]:
    """Return how many steps are ready, by priority."""
    lanes: Counter[str] = Counter()
    for query in (_WAITING, _WAITING_KEYED):
        lanes.update(dict(conn.execute(query).fetchall()))
    return dict(lanes)


def dead_letter_growth_1h(conn: sqlite3.Connection, now_ms: int) -> int:
    """Return how many tasks in DEAD_LETTER changed within the last hour, counted no further than ``GROWTH_MAX``."""
    recent = f"SELECT 1 FROM tasks WHERE {RARE} AND status='DEAD_LETTER' AND updated_at_ms>=? LIMIT ?"
    return _count(conn, f"({recent})", now_ms - _HOUR_MS, GROWTH_MAX)


def _count(conn: sqlite3.Connection, what: str, *values: object) -> int:
    return int(conn.execute(f"SELECT count(*) FROM {what}", values).fetchone()[0])


def _task_counts(conn: sqlite3.Connection, rows: dict[str, int]) -> dict[str, int]:
    """Count tasks per status: what is open or rare by its index, the rest, which is history, by subtraction."""
    counts: dict[str, int] = dict(
        conn.execute(
            "SELECT status, count(*) FROM tasks INDEXED BY tasks_open WHERE finished_at_ms IS NULL GROUP BY status"
        ).fetchall()
    )
    # Of these the index alone answers, without a look at the rows.
    counts.update(conn.execute(f"SELECT status, count(*) FROM tasks WHERE {RARE} GROUP BY status").fetchall())
    counts["SUCCESS"] = counts.get("SUCCESS", 0) + total(conn, "tasks", rows) - sum(counts.values())
    return {status: count for status, count in counts.items() if count}


def _step_counts(conn: sqlite3.Connection, rows: dict[str, int]) -> dict[str, int]:
    """Count steps per status: those of tasks that are open or did not succeed one by one, the rest by subtraction."""
    counts: dict[str, int] = dict(
        conn.execute(
            "SELECT s.status, count(*) FROM ("
            " SELECT task_id FROM tasks INDEXED BY tasks_open WHERE finished_at_ms IS NULL"
            f" UNION SELECT task_id FROM tasks WHERE {RARE}"
            ") t JOIN steps s ON s.task_id=t.task_id GROUP BY s.status"
        ).fetchall()
    )
    counts["SUCCESS"] = counts.get("SUCCESS", 0) + total(conn, "steps", rows) - sum(counts.values())
    return {status: count for status, count in counts.items() if count}


def _message_states(
    conn: sqlite3.Connection, attempts: dict[str, int], step_status: dict[str, int], lanes: dict[str, int]
) -> dict[str, int]:
    """Count what the view ``messages`` shows, without reading it: only steps that did not succeed are looked at."""
    failed = attempts.pop("failed", 0)
    # The last attempt of an ended step is the step's own message; a cancel has made all the earlier ones DEAD.
    own_failed, own_other, made_dead = conn.execute(
        "SELECT coalesce(sum(own AND failed), 0), coalesce(sum(own AND NOT failed), 0),"
        " coalesce(sum(failed AND NOT own AND cancelled), 0) FROM ("
        " SELECT a.lease_epoch=s.lease_epoch AS own, a.outcome='failed' AS failed, s.status='CANCELLED' AS cancelled"
        f" FROM (SELECT task_id FROM tasks WHERE {RARE}) t JOIN steps s ON s.task_id=t.task_id"
        " JOIN attempts a ON a.step_id=s.step_id WHERE s.status IN ('DEAD_LETTER','CANCELLED'))"
    ).fetchone()
    (never_sent,) = conn.execute(
        f"SELECT count(*) FROM (SELECT task_id FROM tasks WHERE {RARE}) t JOIN steps s ON s.task_id=t.task_id"
        " WHERE s.status='CANCELLED' AND (s.waiting_on<>0 OR s.delayed<>0)"
    ).fetchone()
    ended = step_status.get("DEAD_LETTER", 0) + step_status.get("CANCELLED", 0) - never_sent
    states = {
        "QUEUED": sum(lanes.values()),
        "PROCESSING": step_status.get("RUNNING", 0),
        "DONE": step_status.get("SUCCESS", 0),
        "FAILED": failed - own_failed - made_dead,
        "DEAD": ended + sum(attempts.values()) - own_other + made_dead,
    }
    return {state: count for state, count in states.items() if count}


def queue_lag_ms(conn: sqlite3.Connection, now_ms: int) -> int:
    """Return the age of the oldest step that could run now or waits for its retry, 0 if there is none."""
    times = list(oldest_ready_ms(conn).values())
    (retrying,) = conn.execute(
        "SELECT min(created_at_ms) FROM steps INDEXED BY steps_retrying WHERE status='RETRYING'"
    ).fetchone()
    if retrying is not None:
        times.append(int(retrying))
    return max(0, now_ms - min(times)) if times else 0
