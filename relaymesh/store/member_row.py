"""Heartbeats of members into ``mesh_nodes``: the rules are ``relaymesh.core.mesh.silence``, the guards are here.

A transition is written only onto the row that it was decided from. The caller holds the write transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from relaymesh.core.mesh.silence import Patience, Row, Status, heard, judged
from relaymesh.core.mesh.tick import AHEAD_MS_MAX, oldest_ms

__all__ = ["MEMBERS_MAX", "Written", "fresh_members", "hear_members", "member_count", "reconcile_members"]

MEMBERS_MAX: Final = 4_096
"""Rows of members; heartbeats of unknown nodes above it are dropped."""
_COLUMNS: Final = "status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms"


class Written(NamedTuple):
    """applied: heartbeats that were news. suppressed: recoveries that a dwell time held back."""

    applied: int
    suppressed: int


def hear_members(
    conn: sqlite3.Connection, beats: Iterable[tuple[str, int]], *, now_ms: int, patience: Patience
) -> Written:
    """Take heartbeats in: node id and wall time of each.

    One that is not newer than the newest changes nothing, so that a packet which comes again does no harm.
    """
    applied = suppressed = 0
    for node_id, heartbeat_ms in beats:
        found = conn.execute(f"SELECT {_COLUMNS} FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone()
        known = None if found is None else Row(*found)
        if known is None and member_count(conn) >= MEMBERS_MAX:
            continue
        if known is not None and heartbeat_ms <= known.heartbeat_ms:
            continue
        after = heard(known, heartbeat_ms, now_ms, patience)
        if after.row is not None and _write(conn, node_id, known, after.row):
            applied += 1
            suppressed += after.suppressed
    return Written(applied, suppressed)


def reconcile_members(conn: sqlite3.Connection, *, now_ms: int, patience: Patience) -> tuple[list[str], list[str]]:
    """Mark who has been silent for too long; return who became SUSPECT and who DEAD."""
    suspected: list[str] = []
    dead: list[str] = []
    rows = conn.execute(
        f"SELECT node_id, {_COLUMNS} FROM mesh_nodes WHERE status IN ('ALIVE', 'SUSPECT') AND last_heartbeat_ms<?"
        " ORDER BY node_id LIMIT ?",
        (now_ms - patience.suspect_after_ms, MEMBERS_MAX),
    ).fetchall()
    for node_id, *columns in rows:
        known = Row(*columns)
        verdict = judged(known, now_ms, patience)
        if verdict is not None and _write(conn, node_id, known, Row(verdict, known.heartbeat_ms, now_ms, now_ms)):
            (dead if verdict is Status.DEAD else suspected).append(node_id)
    return suspected, dead


def fresh_members(conn: sqlite3.Connection, *, now_ms: int, patience: Patience, but: str) -> Sequence[tuple[str, int]]:
    """Return the members whose heartbeat is young enough to be passed on, with it; without one node, and who left."""
    return conn.execute(
        "SELECT node_id, last_heartbeat_ms FROM mesh_nodes WHERE last_heartbeat_ms BETWEEN ? AND ? AND node_id<>?"
        " AND status IN ('ALIVE', 'SUSPECT', 'DEAD') ORDER BY node_id LIMIT ?",
        (oldest_ms(now_ms, patience), now_ms + AHEAD_MS_MAX, but, MEMBERS_MAX),
    ).fetchall()


def member_count(conn: sqlite3.Connection) -> int:
    """Return how many members the root knows."""
    return int(conn.execute("SELECT count(*) FROM mesh_nodes").fetchone()[0])


def _write(conn: sqlite3.Connection, node_id: str, known: Row | None, row: Row) -> bool:
    values = (row.status, row.heartbeat_ms, row.updated_ms, row.changed_ms)
    if known is None:
        done = conn.execute(
            f"INSERT INTO mesh_nodes({_COLUMNS}, node_id) VALUES (?,?,?,?,?) ON CONFLICT(node_id) DO NOTHING",
            (*values, node_id),
        )
    else:
        done = conn.execute(
            "UPDATE mesh_nodes SET status=?, last_heartbeat_ms=?, updated_at_ms=?, status_changed_at_ms=?"
            " WHERE node_id=? AND status=? AND last_heartbeat_ms=? AND status_changed_at_ms=?",
            (*values, node_id, known.status, known.heartbeat_ms, known.changed_ms),
        )
    return done.rowcount == 1
