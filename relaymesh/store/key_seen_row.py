"""What was seen of the keys of a mesh, kept for the next process: one row of ``cluster_state``, ``gossip_keys_seen``.

Losing it costs nothing but time: until members are heard again, a key counts as not confirmed.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from relaymesh.core.mesh.key_seen import KeyMember, KeysSeen

__all__ = ["key_members", "load_keys_seen", "save_keys_seen"]

_KEY: Final = "gossip_keys_seen"
_Rows = dict[str, tuple[int, tuple[str, ...], dict[str, int]]]
_DECODER: Final = msgspec.json.Decoder(_Rows)
_MEMBERS_MAX: Final = 4_096


def load_keys_seen(conn: sqlite3.Connection) -> KeysSeen:
    """Return what is kept; nothing of a row that cannot be read."""
    seen = KeysSeen()
    row = conn.execute("SELECT state_value FROM cluster_state WHERE state_key=?", (_KEY,)).fetchone()
    if row is not None:
        try:
            seen.merge(_DECODER.decode(row[0]))
        except (msgspec.MsgspecError, TypeError):
            return KeysSeen()
    return seen


def save_keys_seen(conn: sqlite3.Connection, seen: KeysSeen, *, now_ms: int) -> None:
    """Keep what was seen beside what other processes have; the caller holds the write transaction."""
    all_seen = load_keys_seen(conn)
    all_seen.merge(seen.rows())
    all_seen.forget({row[0] for row in conn.execute("SELECT node_id FROM mesh_nodes LIMIT ?", (2 * _MEMBERS_MAX,))})
    conn.execute(
        "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?,?,1,?)"
        " ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,"
        " updated_at_ms=max(excluded.updated_at_ms, updated_at_ms+1)",
        (_KEY, msgspec.json.encode(all_seen.rows()).decode(), now_ms),
    )


def key_members(conn: sqlite3.Connection) -> list[KeyMember]:
    """Return the members that keys matter to: all that did not leave.

    Who has a host registered itself on this root, and reads its ring.
    """
    rows = conn.execute(
        "SELECT node_id, status, host FROM mesh_nodes WHERE status IN ('ALIVE', 'SUSPECT', 'DEAD')"
        " ORDER BY node_id LIMIT ?",
        (_MEMBERS_MAX,),
    ).fetchall()
    return [KeyMember(node_id, status == "ALIVE", host is not None) for node_id, status, host in rows]
