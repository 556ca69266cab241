"""The counters of a root. They lie in its database, so they survive restarts and are the same in every process.

Each is raised in the transaction of what it counts: after a crash it says neither more nor less than the rows beside
it. None of them ever falls, also when what was counted has been purged.
"""

from __future__ import annotations

import sqlite3

__all__ = [
    "BUDGET_CUT",
    "BUDGET_USED_UP",
    "CONFLICT_PREFIX",
    "DEAD_OWNER_RECLAIMED",
    "LOW_STARVATION",
    "NODES_PRUNED",
    "OF_STATS",
    "PAYLOAD_RESEALED",
    "RECOVERY_SUPPRESSED",
    "REPLICATION_LAG_MS",
    "SLO_ALERT_FIRED",
    "SUBMIT_REJECTED",
    "WORKER_PAUSED",
    "add_counter",
    "conflicts_by_type",
    "count_conflict",
    "counters",
]

BUDGET_CUT = "budget_cut"
BUDGET_USED_UP = "budget_used_up"
DEAD_OWNER_RECLAIMED = "dead_owner_reclaimed"
LOW_STARVATION = "low_starvation"
NODES_PRUNED = "mesh_nodes_pruned"
RECOVERY_SUPPRESSED = "membership_recovery_suppressed"
WORKER_PAUSED = "worker_paused"
SLO_ALERT_FIRED = "slo_alert_fire"
SUBMIT_REJECTED = "submit_rejected"
PAYLOAD_RESEALED = "payload_resealed"
REPLICATION_LAG_MS = "replication_last_import_lag_ms"
CONFLICT_PREFIX = "lease_conflict."
"""Followed by the event type: as many counters as there are types."""

OF_STATS = {
    "anti_entropy_merge_total": "anti_entropy_merge",
    "web_write_get_compat_total": "web_write_get_compat",
    "web_write_rate_limited_total": "web_write_rate_limited",
    "dead_owner_reclaimed_total": DEAD_OWNER_RECLAIMED,
    "membership_recovery_suppressed_total": RECOVERY_SUPPRESSED,
    "mesh_nodes_pruned_total": NODES_PRUNED,
    "worker_paused_total": WORKER_PAUSED,
    "replication_import_total": "replication_import",
    "replication_tie_resolved_total": "replication_tie_resolved",
    "replication_tie_kept_local_total": "replication_tie_kept_local",
    "replication_last_import_lag_ms": REPLICATION_LAG_MS,
    "low_starvation_count": LOW_STARVATION,
    "replication_sync_total": "replication_sync",
    "slo_alert_fire_total": SLO_ALERT_FIRED,
    "submit_rejected_total": SUBMIT_REJECTED,
}
"""Which counter each field of the counts of a root shows. One that nobody has raised yet is 0."""


def add_counter(conn: sqlite3.Connection, name: str, amount: int) -> None:
    """Add to a counter of the root; the caller holds the write transaction."""
    conn.execute(
        "INSERT INTO counters(name, value) VALUES (?,?) ON CONFLICT(name) DO UPDATE SET value=value+excluded.value",
        (name, amount),
    )


def counters(conn: sqlite3.Connection) -> dict[str, int]:
    """Return all counters by name, without the buckets of latencies (``relaymesh.store.latency``)."""
    return dict(conn.execute("SELECT name, value FROM counters WHERE name<'step_ms.' OR name>='step_ms/'").fetchall())


def count_conflict(conn: sqlite3.Connection, event_type: str) -> None:
    """Count one conflict, after its row was written.

    A root from before there were these counters begins with the rows that it has.
    """
    raised = conn.execute("UPDATE counters SET value=value+1 WHERE name=?", (CONFLICT_PREFIX + event_type,)).rowcount
    if not raised:
        conn.execute(
            "INSERT INTO counters(name, value) SELECT ?, count(*) FROM lease_conflicts WHERE event_type=?",
            (CONFLICT_PREFIX + event_type, event_type),
        )


def conflicts_by_type(conn: sqlite3.Connection, counted: dict[str, int]) -> dict[str, int]:
    """Return the conflicts of each type. counted: what ``counters`` returned.

    Rows that something else wrote are not counted, and rows of before are not yet: so whichever is more.
    """
    found: dict[str, int] = dict(
        conn.execute("SELECT event_type, count(*) FROM lease_conflicts GROUP BY event_type").fetchall()
    )
    for name, value in counted.items():
        if name.startswith(CONFLICT_PREFIX):
            event_type = name.removeprefix(CONFLICT_PREFIX)
            found[event_type] = max(value, found.get(event_type, 0))
    return dict(sorted(found.items()))
