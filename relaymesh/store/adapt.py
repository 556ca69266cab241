"""Make the rows of a copied database fit for the place where they come: leases, fencing counters, paths.

Nobody who held a lease when the copy was made holds it now, so what ran is ready again and no attempt is counted. No
step comes back with a smaller lease epoch than it had in the root that it replaces, no node with a smaller generation.
The caller holds the write transaction.
"""

from __future__ import annotations

import json
import sqlite3

from relaymesh.store.row_count import recount

__all__ = ["count_rows", "give_back_leases", "raise_epochs", "relative_paths", "runnable", "set_cluster_epoch"]

_OPEN = "status NOT IN ('SUCCESS','CANCELLED')"
_PIECE = 500


def runnable(conn: sqlite3.Connection) -> bool:
    """Return whether there is a step that is open, or that a replay may open."""
    return bool(conn.execute(f"SELECT EXISTS(SELECT 1 FROM steps WHERE {_OPEN})").fetchone()[0])


def raise_epochs(conn: sqlite3.Connection, present: sqlite3.Connection) -> None:
    """Let no counter of an open step or a node be below that of the database that is replaced.

    Raises sqlite3.DatabaseError: the present database is damaged.
    """
    nodes = present.execute("SELECT generation, node_id FROM mesh_nodes").fetchall()
    conn.executemany("UPDATE mesh_nodes SET generation=max(generation, ?) WHERE node_id=?", nodes)
    if _has_mesh(conn) and _has_mesh(present):
        # A generation that was spoken as before is not used again: others would take its packets for old ones.
        members = present.execute("SELECT generation, node_id FROM mesh_members").fetchall()
        conn.executemany("UPDATE mesh_members SET generation=max(generation, ?) WHERE node_id=?", members)
    after = 0
    while rows := conn.execute(
        f"SELECT id, step_id FROM steps WHERE id>? AND {_OPEN} ORDER BY id LIMIT ?", (after, _PIECE)
    ).fetchall():
        after = rows[-1][0]
        known = present.execute(
            "SELECT lease_epoch, step_id FROM steps WHERE step_id IN (SELECT value FROM json_each(?))",
            (json.dumps([row[1] for row in rows]),),
        ).fetchall()
        conn.executemany("UPDATE steps SET lease_epoch=max(lease_epoch, ?) WHERE step_id=?", known)


def _has_mesh(conn: sqlite3.Connection) -> bool:
    found = conn.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='mesh_members'").fetchone()
    return found is not None


def set_cluster_epoch(conn: sqlite3.Connection, epoch: int, *, version: int, now_ms: int) -> None:
    """Set the fencing counter of the root. version: of the counter that is replaced; the new one is above it."""
    conn.execute(
        "UPDATE cluster_state SET state_value=?, version=max(version, ?)+1, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE state_key='cluster_epoch'",
        (str(epoch), version, now_ms),
    )


def count_rows(conn: sqlite3.Connection) -> None:
    """Count all rows, whatever the copy says of itself; one of an older schema is counted when it is migrated."""
    if conn.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='row_counts'").fetchone() is not None:
        recount(conn)


def give_back_leases(conn: sqlite3.Connection, *, now_ms: int) -> None:
    """Make ready what ran, and say of all nodes that they have left."""
    conn.execute(
        "UPDATE steps SET status='PENDING', lease_owner=NULL, lease_token=NULL, attempt=max(0, attempt-1),"
        " updated_at_ms=max(?, updated_at_ms+1) WHERE status='RUNNING'",
        (now_ms,),
    )
    conn.execute(
        "UPDATE mesh_nodes SET status='LEFT', status_changed_at_ms=?, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE status='ALIVE'",
        (now_ms, now_ms),
    )


def relative_paths(conn: sqlite3.Connection, former_root: str) -> None:
    """Cut the former root off: rows of other writers may name their files by the absolute path."""
    prefix = f"{former_root}/"
    cut = (len(prefix) + 1, len(prefix), prefix)
    conn.execute("UPDATE steps SET payload_path=substr(payload_path, ?) WHERE substr(payload_path, 1, ?)=?", cut)
    conn.execute("UPDATE steps SET result_path=substr(result_path, ?) WHERE substr(result_path, 1, ?)=?", cut)
