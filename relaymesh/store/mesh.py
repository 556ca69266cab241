"""What nodes of a root know of the mesh, in its database: members, where they are, and what a restart has to know.

    mesh_nodes     the word that counts for claims and for people, one row a member, also of nodes of other roots
    mesh_members   what the mesh agrees on: address, generation, version, state; and the round trip to it
    mesh_marks     per node, the packets that it has seen

A node of this root writes its own row of ``mesh_nodes`` (host, process, agents, heartbeat); what the others think of it
goes into ``status``. Rows of nodes of other roots have no host and the generation 0: they have never registered here.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from relaymesh.core.mesh.member import State
from relaymesh.store.counter import add_counter
from relaymesh.store.presence import is_alive
from relaymesh.wire.mesh import MemberRow, WriteMembers

__all__ = ["MEMBERS_READ_MAX", "Known", "addresses_here", "load_known", "write_members"]

MEMBERS_READ_MAX: Final = 4_096
_HEARTBEAT_FRESH_MS: Final = 30_000

_OWN: Final = """
INSERT INTO mesh_members(node_id, address, generation, version, state, owner_generation, updated_at_ms)
VALUES (?,?,?,?,?,?,?)
ON CONFLICT(node_id) DO UPDATE SET address=excluded.address, generation=excluded.generation, version=excluded.version,
    state=excluded.state, owner_generation=excluded.owner_generation, updated_at_ms=excluded.updated_at_ms
WHERE (excluded.generation, excluded.version) >= (generation, version)
    OR excluded.owner_generation > coalesce(owner_generation, 0)
"""
_MEMBER: Final = """
INSERT INTO mesh_members(node_id, address, generation, version, state, updated_at_ms) VALUES (?,?,?,?,?,?)
ON CONFLICT(node_id) DO UPDATE SET address=excluded.address, generation=excluded.generation, version=excluded.version,
    state=excluded.state, updated_at_ms=excluded.updated_at_ms
WHERE (excluded.generation, excluded.version) >= (generation, version)
"""
# Of a node of this root: a later run, which does not gossip or has not said so yet, is not what the mesh speaks of; one
# that has left said so itself, and is back when it says that; and who writes no heartbeats is not alive for the root,
# whoever hears it. Of others: that nobody hears from who has left is no news. Nodes of a root may disagree: who has not
# noticed that a member was away does not make it ALIVE before the dwell time of what another wrote is over.
# Who is back after a dwell time has been silent for longer than a member may be: its time of silence ends with it.
_SHOW: Final = """
UPDATE mesh_nodes SET status=:word, status_changed_at_ms=:now, updated_at_ms=max(:now, updated_at_ms+1),
    last_heartbeat_ms=CASE WHEN host IS NULL AND :word='ALIVE' THEN max(:now, last_heartbeat_ms)
        ELSE last_heartbeat_ms END
WHERE node_id=:node AND status=:before AND status<>:word AND (:word<>'ALIVE' OR :now>=status_changed_at_ms
    + CASE status WHEN 'SUSPECT' THEN :suspect_dwell WHEN 'DEAD' THEN :dead_dwell ELSE 0 END) AND (
    host IS NULL AND NOT (status='LEFT' AND :word IN ('SUSPECT','DEAD'))
    OR host IS NOT NULL AND status<>'LEFT' AND (:word<>'ALIVE' OR last_heartbeat_ms>=:now-:silent)
        AND EXISTS (SELECT 1 FROM mesh_members m WHERE m.node_id=mesh_nodes.node_id
            AND m.owner_generation=mesh_nodes.generation))
"""
_FOREIGN: Final = """
INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms)
VALUES (?1,?2,?3,?3,?3) ON CONFLICT(node_id) DO NOTHING
"""
_REFRESH: Final = """
UPDATE mesh_nodes SET last_heartbeat_ms=max(?1, last_heartbeat_ms), updated_at_ms=max(?1, updated_at_ms+1)
WHERE host IS NULL AND status='ALIVE' AND last_heartbeat_ms<?1-?2 AND node_id IN (SELECT value FROM json_each(?3))
"""
# Whose word is held back by its dwell time is heard all the same.
_HEARD: Final = """
UPDATE mesh_nodes SET last_heartbeat_ms=max(?1, last_heartbeat_ms), updated_at_ms=max(?1, updated_at_ms+1)
WHERE host IS NULL AND status IN ('SUSPECT','DEAD') AND node_id IN (SELECT value FROM json_each(?2))
"""
_ADDRESSES: Final = """
SELECT m.node_id, m.address, n.host, n.last_heartbeat_ms FROM mesh_members m JOIN mesh_nodes n ON n.node_id=m.node_id
WHERE n.host IS NOT NULL AND n.status<>'LEFT' AND m.owner_generation=n.generation AND m.node_id<>?
ORDER BY n.last_heartbeat_ms DESC LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What a node knew before its start. generation: the last that it spoke as, 0 for none."""

    generation: int
    members: tuple[MemberRow, ...]
    marks: bytes


def load_known(conn: sqlite3.Connection, node_id: str) -> Known:
    """Return what is known of the mesh; at most MEMBERS_READ_MAX members, those that changed last."""
    own = conn.execute("SELECT generation FROM mesh_members WHERE node_id=?", (node_id,)).fetchone()
    marks = conn.execute("SELECT marks FROM mesh_marks WHERE node_id=?", (node_id,)).fetchone()
    # One whose word is another is held back by a dwell time that others know; it is learned anew.
    rows = conn.execute(
        "SELECT m.node_id, m.address, m.generation, m.version FROM mesh_members m JOIN mesh_nodes n"
        " ON n.node_id=m.node_id WHERE m.state IN ('ALIVE','SUSPECT') AND n.status='ALIVE'"
        " AND m.node_id<>? ORDER BY m.updated_at_ms DESC LIMIT ?",
        (node_id, MEMBERS_READ_MAX),
    ).fetchall()
    return Known(
        generation=int(own[0]) if own is not None else 0,
        members=tuple(
            MemberRow(other, address, generation, version, int(State.ALIVE), int(State.ALIVE))
            for other, address, generation, version in rows
        ),
        marks=bytes(marks[0]) if marks is not None else b"",
    )


def addresses_here(
    conn: sqlite3.Connection, run: Path, node_id: str, *, here: str, now_ms: int, limit: int
) -> tuple[str, ...]:
    """Return where the other nodes of the root are that live: by their lock on this machine, by heartbeat elsewhere."""
    found = []
    for other, address, host, heartbeat_ms in conn.execute(_ADDRESSES, (node_id, limit)):
        alive = is_alive(run, other, here) if host == here else None
        local = address.startswith(("127.", "[::1]"))
        if alive or (alive is None and now_ms - heartbeat_ms <= _HEARTBEAT_FRESH_MS and not (local and host != here)):
            found.append(address)
    return tuple(found)


def write_members(conn: sqlite3.Connection, order: WriteMembers, *, now_ms: int) -> tuple[tuple[str, str, str], ...]:
    """Write what a node knows; return ``(node id, status before or "", status)`` of the members whose word changed.

    The caller holds the write transaction.
    """
    if order.own is not None:
        own = order.own
        state = State(own.state).name
        values = (own.node_id, own.address, own.generation, own.version, state, order.owner_generation, now_ms)
        conn.execute(_OWN, values)
    turned: list[tuple[str, str, str]] = []
    for row in order.changed:
        state, shown = State(row.state).name, State(row.shown).name
        conn.execute(_MEMBER, (row.node_id, row.address, row.generation, row.version, state, now_ms))
        known = conn.execute("SELECT 1 FROM mesh_nodes WHERE node_id=?", (row.node_id,)).fetchone()
        conn.execute(_FOREIGN, (row.node_id, shown, now_ms))
        if known is None:
            turned.append((row.node_id, "", shown))
        else:
            turned += _show(conn, row.node_id, shown, now_ms, order)
    for node_id, number in order.shown:
        turned += _show(conn, node_id, State(number).name, now_ms, order)
    if order.heard:
        conn.executemany(
            "UPDATE mesh_members SET rtt_us=?, heard_at_ms=?, heard_by=? WHERE node_id=?",
            [(rtt_us if rtt_us >= 0 else None, now_ms, order.observer, node_id) for node_id, rtt_us in order.heard],
        )
        conn.execute(_HEARD, (now_ms, msgspec.json.encode([node_id for node_id, _ in order.heard]).decode()))
    alive = [node_id for node_id, number in order.shown if number == State.ALIVE]
    if alive:
        conn.execute(_REFRESH, (now_ms, order.refresh_ms, msgspec.json.encode(alive).decode()))
    if order.pruned:
        conn.executemany(
            "DELETE FROM mesh_members WHERE node_id=? AND state IN ('DEAD','LEFT') AND owner_generation IS NULL",
            [(node_id,) for node_id in order.pruned],
        )
    if order.marks:
        conn.execute(
            "INSERT INTO mesh_marks(node_id, marks, updated_at_ms) VALUES (?,?,?) ON CONFLICT(node_id) DO UPDATE"
            " SET marks=excluded.marks, updated_at_ms=excluded.updated_at_ms",
            (order.observer, order.marks, now_ms),
        )
    for name, amount in order.counters:
        add_counter(conn, name, amount)
    if order.beats or order.keys:
        _write_heard(conn, order, now_ms)
    return tuple(turned)


def _write_heard(conn: sqlite3.Connection, order: WriteMembers, now_ms: int) -> None:
    from relaymesh.core.mesh.key_seen import KeysSeen
    from relaymesh.core.mesh.silence import Patience
    from relaymesh.store.key_seen_row import save_keys_seen
    from relaymesh.store.member_row import hear_members

    if order.beats:
        suspect_ms, dead_ms, suspect_dwell_ms, dead_dwell_ms = order.patience
        patience = Patience(
            suspect_after_ms=suspect_ms,
            dead_after_ms=dead_ms,
            suspect_recover_min_ms=suspect_dwell_ms,
            dead_recover_min_ms=dead_dwell_ms,
        )
        written = hear_members(conn, order.beats, now_ms=now_ms, patience=patience)
        if written.suppressed:
            add_counter(conn, "membership_recovery_suppressed", written.suppressed)
    if order.keys:
        seen = KeysSeen()
        seen.merge({node_id: (at_ms, holds, dict(used)) for node_id, at_ms, holds, used in order.keys})
        save_keys_seen(conn, seen, now_ms=now_ms)


def _show(
    conn: sqlite3.Connection, node_id: str, shown: str, now_ms: int, order: WriteMembers
) -> list[tuple[str, str, str]]:
    row = conn.execute("SELECT status FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone()
    if row is None or row[0] == shown:
        return []
    before = str(row[0])
    _, _, suspect_dwell_ms, dead_dwell_ms = order.patience
    guards = {
        "before": before,
        "silent": order.silent_ms,
        "suspect_dwell": suspect_dwell_ms,
        "dead_dwell": dead_dwell_ms,
    }
    changed = conn.execute(_SHOW, {"word": shown, "now": now_ms, "node": node_id, **guards}).rowcount
    return [(node_id, before, shown)] if changed else []
