"""Heartbeats that were heard from others, into the member table; whom to tell others of.

The rules are ``relaymesh.core.mesh.silence``, the guarded writes those of ``relaymesh.store.member``. The caller holds
the write transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from relaymesh.core.mesh.silence import Patience, heard
from relaymesh.core.mesh.tick import AHEAD_MS_MAX, oldest_ms
from relaymesh.store.grave import buried_at_ms
from relaymesh.store.member import read_row, write_row

__all__ = ["MEMBERS_MAX", "Written", "fresh_members", "hear_members", "member_count"]

MEMBERS_MAX: Final = 4_096
"""Rows of members; heartbeats of unknown nodes above it are dropped."""


class Written(NamedTuple):
    """applied: heartbeats that were news. suppressed: recoveries that a dwell time held back."""

    applied: int
    suppressed: int


def hear_members(
    conn: sqlite3.Connection, beats: Iterable[tuple[str, int]], *, now_ms: int, patience: Patience
) -> Written:
    """Take heartbeats in: node id and wall time of each.

    One that is not newer than the newest, or than the prune that removed the member, changes nothing: so a packet
    which comes again does no harm.
    """
    applied = suppressed = 0
    for node_id, heartbeat_ms in beats:
        known = read_row(conn, node_id)
        if known is None:
            pruned_ms = buried_at_ms(conn, node_id)
            if (pruned_ms is not None and heartbeat_ms <= pruned_ms) or member_count(conn) >= MEMBERS_MAX:
                continue
        elif heartbeat_ms <= known.heartbeat_ms:
            continue
        after = heard(known, heartbeat_ms, now_ms, patience)
        if after.row is not None and write_row(conn, node_id, known, after.row):
            applied += 1
            suppressed += after.suppressed
    return Written(applied, suppressed)


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
