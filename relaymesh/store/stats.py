"""Counts and ages of a root, without reading its history row by row."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from pathlib import Path

from relaymesh.core.percentile import percentiles
from relaymesh.store.admin import cluster_epoch
from relaymesh.store.schema import KEYED_READY, PLAIN_READY, RARE
from relaymesh.view import StatsOutcome

__all__ = ["stats", "waiting"]

_WAITING = f"SELECT priority, count(*) FROM steps INDEXED BY steps_ready WHERE {PLAIN_READY} GROUP BY priority"
_WAITING_KEYED = f"SELECT priority, count(*) FROM steps INDEXED BY steps_keyed WHERE {KEYED_READY} GROUP BY priority"
_LATENCY_SAMPLE = 5_000
_HOUR_MS = 3_600_000


def stats(conn: sqlite3.Connection, root: Path, *, namespace: str, now_ms: int) -> StatsOutcome:
    """Return the counts of one scoped root."""
    task_status = _task_counts(conn)
    step_status = _step_counts(conn)
    lanes = waiting(conn)
    p95, p99 = _latencies(conn)
    conflicts = dict(conn.execute("SELECT event_type, count(*) FROM lease_conflicts GROUP BY event_type").fetchall())
    counters = dict(conn.execute("SELECT name, value FROM counters").fetchall())
    nodes = dict(conn.execute("SELECT status, count(*) FROM mesh_nodes GROUP BY status").fetchall())
    owners = dict(
        conn.execute(
            "SELECT coalesce(n.status, 'UNKNOWN'), count(*) FROM steps s LEFT JOIN mesh_nodes n"
            " ON n.node_id=s.lease_owner WHERE s.status='RUNNING' GROUP BY 1"
        ).fetchall()
    )
    return StatsOutcome(
        task_status=task_status,
        step_status=step_status,
        message_state=_message_states(conn, step_status, lanes),
        inbox_high=lanes.get("HIGH", 0),
        inbox_normal=lanes.get("NORMAL", 0),
        inbox_low=lanes.get("LOW", 0),
        queue_lag_ms=_queue_lag(conn, now_ms),
        step_latency_p95_ms=p95,
        step_latency_p99_ms=p99,
        dead_letter_growth_1h=_count(
            conn, f"tasks WHERE {RARE} AND status='DEAD_LETTER' AND updated_at_ms>=?", now_ms - _HOUR_MS
        ),
        lease_conflict_total=sum(conflicts.values()),
        lease_conflict_1h=_count(conn, "lease_conflicts WHERE occurred_at_ms>=?", now_ms - _HOUR_MS),
        lease_conflict_by_type=conflicts,
        dead_owner_reclaimed_total=counters.get("dead_owner_reclaimed", 0),
        submit_rejected_total=counters.get("submit_rejected", 0),
        low_starvation_count=counters.get("low_starvation", 0),
        cluster_epoch=cluster_epoch(conn),
        mesh_total_nodes=sum(nodes.values()),
        mesh_alive_nodes=nodes.get("ALIVE", 0),
        mesh_suspect_nodes=nodes.get("SUSPECT", 0),
        mesh_dead_nodes=nodes.get("DEAD", 0),
        mesh_running_by_alive_owners=owners.get("ALIVE", 0),
        mesh_running_by_suspect_owners=owners.get("SUSPECT", 0),
        mesh_running_by_dead_owners=owners.get("DEAD", 0),
        mesh_running_by_unknown_owners=owners.get("UNKNOWN", 0),
        disk_free_bytes=_free_bytes(root),
        namespace=namespace,
    )


def waiting(conn: sqlite3.Connection) -> dict[str, int]:
    """Return how many steps are ready, by priority."""
    lanes: Counter[str] = Counter()
    for query in (_WAITING, _WAITING_KEYED):
        lanes.update(dict(conn.execute(query).fetchall()))
    return dict(lanes)


def _count(conn: sqlite3.Connection, what: str, *values: object) -> int:
    return int(conn.execute(f"SELECT count(*) FROM {what}", values).fetchone()[0])


def _task_counts(conn: sqlite3.Connection) -> dict[str, int]:
    """Count tasks per status: what is open or rare by its index, the rest, which is history, by subtraction."""
    counts: dict[str, int] = dict(
        conn.execute(
            "SELECT status, count(*) FROM tasks INDEXED BY tasks_open WHERE finished_at_ms IS NULL GROUP BY status"
        ).fetchall()
    )
    rare = conn.execute(
        f"SELECT status, sum(finished_at_ms IS NOT NULL) FROM tasks WHERE {RARE} GROUP BY status"
    ).fetchall()
    for status, count in rare:
        counts[status] = counts.get(status, 0) + count
    counts["SUCCESS"] = counts.get("SUCCESS", 0) + _count(conn, "tasks") - sum(counts.values())
    return {status: count for status, count in counts.items() if count}


def _step_counts(conn: sqlite3.Connection) -> dict[str, int]:
    """Count steps per status: those of tasks that are open or did not succeed one by one, the rest by subtraction."""
    counts: dict[str, int] = dict(
        conn.execute(
            "SELECT s.status, count(*) FROM ("
            " SELECT task_id FROM tasks INDEXED BY tasks_open WHERE finished_at_ms IS NULL"
            f" UNION SELECT task_id FROM tasks WHERE {RARE}"
            ") t JOIN steps s ON s.task_id=t.task_id GROUP BY s.status"
        ).fetchall()
    )
    counts["SUCCESS"] = counts.get("SUCCESS", 0) + _count(conn, "steps") - sum(counts.values())
    return {status: count for status, count in counts.items() if count}


def _message_states(conn: sqlite3.Connection, step_status: dict[str, int], lanes: dict[str, int]) -> dict[str, int]:
    """Count what the view ``messages`` shows, without reading it: only steps that did not succeed are looked at."""
    attempts = dict(conn.execute("SELECT outcome, count(*) FROM attempts GROUP BY outcome").fetchall())
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


def _queue_lag(conn: sqlite3.Connection, now_ms: int) -> int:
    (oldest,) = conn.execute(
        "SELECT min(at) FROM ("
        # A row that somebody wrote by hand knows only when it was made.
        " SELECT min(CASE queued_at_ms WHEN 0 THEN created_at_ms ELSE queued_at_ms END) AS at"
        f" FROM steps INDEXED BY steps_ready WHERE {PLAIN_READY}"
        " UNION ALL SELECT min(queued_at_ms)"
        f" FROM steps INDEXED BY steps_keyed WHERE {KEYED_READY}"
        " UNION ALL SELECT min(created_at_ms) FROM steps INDEXED BY steps_retrying WHERE status='RETRYING')"
    ).fetchone()
    return 0 if oldest is None else max(0, now_ms - int(oldest))


def _latencies(conn: sqlite3.Connection) -> tuple[int, int]:
    sample = [
        row[0]
        for row in conn.execute(
            "SELECT s.updated_at_ms-s.created_at_ms FROM"
            " (SELECT task_id FROM tasks INDEXED BY tasks_updated ORDER BY updated_at_ms DESC LIMIT ?) t"
            " JOIN steps s ON s.task_id=t.task_id WHERE s.status IN ('SUCCESS','DEAD_LETTER','CANCELLED') LIMIT ?",
            (_LATENCY_SAMPLE, _LATENCY_SAMPLE),
        )
    ]
    p95, p99 = percentiles(sample, (95, 99))
    return p95, p99


def _free_bytes(root: Path) -> int:
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return -1
