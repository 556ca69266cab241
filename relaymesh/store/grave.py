"""Members that were removed from the table, and what is remembered of them.

A pruned member leaves one small row in ``cluster_state``, for 30 days, 65,536 of them at most, the oldest go first::

    grave.<hash of the node id>    state_value = its last generation, updated_at_ms = when it was pruned

so that hearsay does not bring it back, and a node that returns gets a later generation than it had before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from relaymesh.audit.member import prune_record
from relaymesh.core.mesh.local import MemberRules
from relaymesh.store.bulk import id_list
from relaymesh.store.counter import NODES_PRUNED, add_counter, counters
from relaymesh.wire.audit import Record

__all__ = ["GRAVE_AGE_MS", "buried", "buried_at_ms", "dig_up", "prune", "prune_by", "prune_is_due"]

GRAVE_AGE_MS: Final = 30 * 86_400_000
_DROPPED_MAX: Final = 1_000
_PRUNED_STATE: Final = "mesh_pruned"
_GRAVE: Final = "grave."
_GONE = """
SELECT node_id, generation FROM mesh_nodes
WHERE status IN ('DEAD','LEFT') AND updated_at_ms<?
    AND NOT EXISTS (SELECT 1 FROM steps INDEXED BY steps_running WHERE status='RUNNING' AND lease_owner=node_id)
ORDER BY updated_at_ms, node_id LIMIT ?
"""


def prune_is_due(conn: sqlite3.Connection, rules: MemberRules, *, now_ms: int) -> bool:
    """Return whether the last prune of the root is long enough ago and there is something to prune; a read."""
    if rules.prune_interval_ms <= 0:
        return False
    last = conn.execute("SELECT updated_at_ms FROM cluster_state WHERE state_key=?", (_PRUNED_STATE,)).fetchone()
    # One that lies in the future was written under another clock.
    if last is not None and 0 <= now_ms - last[0] < rules.prune_interval_ms:
        return False
    return conn.execute(_GONE, (now_ms - rules.prune_older_than_ms, 1)).fetchone() is not None


def prune(conn: sqlite3.Connection, *, older_than_ms: int, limit: int, now_ms: int) -> tuple[tuple[str, ...], int]:
    """Forget members that have been DEAD or LEFT for longer, oldest first; return which, and how many there ever were.

    One that still owns running steps stays: these are taken back as those of a dead owner only while it is known.
    """
    gone = conn.execute(_GONE, (now_ms - older_than_ms, limit)).fetchall()
    conn.execute(
        "DELETE FROM mesh_nodes WHERE node_id IN (SELECT value FROM json_each(?)) AND status IN ('DEAD','LEFT')",
        (id_list(node_id for node_id, _ in gone),),
    )
    _bury(conn, gone, now_ms)
    if gone:
        add_counter(conn, NODES_PRUNED, len(gone))
    conn.execute(
        "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?,?,1,?)"
        " ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,"
        " updated_at_ms=excluded.updated_at_ms",
        (_PRUNED_STATE, str(len(gone)), now_ms),
    )
    return tuple(node_id for node_id, _ in gone), counters(conn).get(NODES_PRUNED, 0)


def prune_by(conn: sqlite3.Connection, rules: MemberRules, *, now_ms: int) -> tuple[tuple[str, ...], Record | None]:
    """Prune as the settings say; return which, and what the audit log is to be told if there were any."""
    age_ms = rules.prune_older_than_ms
    pruned, total = prune(conn, older_than_ms=age_ms, limit=rules.prune_limit, now_ms=now_ms)
    if not pruned:
        return (), None
    record = prune_record(
        older_than_ms=age_ms,
        cutoff_ms=now_ms - age_ms,
        limit=rules.prune_limit,
        pruned=len(pruned),
        total=total,
        actor="maintenance",
    )
    return pruned, record


def buried(conn: sqlite3.Connection, node_id: str, *, now_ms: int) -> int | None:
    """Return the last generation of a member that was pruned within 30 days: only a later one is news. None: no such.

    It is forgotten when the node registers again.
    """
    found = conn.execute(
        "SELECT state_value FROM cluster_state WHERE state_key=? AND updated_at_ms>?",
        (_grave(node_id), now_ms - GRAVE_AGE_MS),
    ).fetchone()
    return int(found[0]) if found is not None else None


def buried_at_ms(conn: sqlite3.Connection, node_id: str) -> int | None:
    """Return when a member was pruned, None for no such: what it said before then does not bring it back."""
    found = conn.execute("SELECT updated_at_ms FROM cluster_state WHERE state_key=?", (_grave(node_id),)).fetchone()
    return int(found[0]) if found is not None else None


def dig_up(conn: sqlite3.Connection, node_id: str) -> None:
    """The node itself is there again."""
    conn.execute("DELETE FROM cluster_state WHERE state_key=?", (_grave(node_id),))


def _bury(conn: sqlite3.Connection, gone: Iterable[tuple[str, int]], now_ms: int) -> None:
    from relaymesh.core.mesh.view import GRAVES_MAX

    conn.executemany(
        "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?,?,1,?)"
        " ON CONFLICT(state_key) DO UPDATE SET version=version+1, updated_at_ms=excluded.updated_at_ms,"
        " state_value=CAST(max(CAST(state_value AS INTEGER), CAST(excluded.state_value AS INTEGER)) AS TEXT)",
        [(_grave(node_id), str(generation), now_ms) for node_id, generation in gone],
    )
    # A few at a time: what is left goes with the next prunes.
    graves = f"state_key>='{_GRAVE}' AND state_key<'{_GRAVE[:-1]}/'"
    conn.execute(
        f"DELETE FROM cluster_state WHERE state_key IN (SELECT state_key FROM cluster_state WHERE {graves}"
        " AND updated_at_ms<=? LIMIT ?)",
        (now_ms - GRAVE_AGE_MS, _DROPPED_MAX),
    )
    (count,) = conn.execute(f"SELECT count(*) FROM cluster_state WHERE {graves}").fetchone()
    if count > GRAVES_MAX:
        conn.execute(
            f"DELETE FROM cluster_state WHERE state_key IN (SELECT state_key FROM cluster_state WHERE {graves}"
            " ORDER BY updated_at_ms, state_key LIMIT ?)",
            (count - GRAVES_MAX,),
        )


def _grave(node_id: str) -> str:
    from relaymesh.core.mesh.member import id_hash  # only nodes and prunes pay for the hashes

    return f"{_GRAVE}{id_hash(node_id):016x}"
