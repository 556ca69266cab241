"""The member table: heartbeats, verdicts of silence, what the dead own, and its counts.

The rules are in ``relaymesh.core.mesh.silence``. Every change is guarded by what was read; the caller holds the write
transaction where something is written. Who was pruned is in ``relaymesh.store.grave``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from relaymesh.core.mesh.silence import Heard, Patience, Row, Status, heard, judged
from relaymesh.store.bulk import id_list
from relaymesh.store.counter import RECOVERY_SUPPRESSED, add_counter
from relaymesh.store.grave import buried, dig_up
from relaymesh.store.node_row import HEARTBEAT_STALE_MS, capabilities_of
from relaymesh.store.presence import host_name, is_alive
from relaymesh.wire.store import SeenLease

__all__ = [
    "MARKED_MAX",
    "Marked",
    "Summary",
    "dead_members",
    "leases_of",
    "read_row",
    "reclaimers",
    "reconcile",
    "register_node",
    "silent_members",
    "status_of",
    "summary",
    "take_heartbeat",
    "vanished_owners",
    "write_heartbeat",
    "write_row",
]

MARKED_MAX: Final = 1_000
"""Members that one round marks at most, the longest silent first; the rest comes with the next round."""
_MEMBERS_MAX: Final = 10_000
_COLUMNS: Final = "status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms"
_SILENT = f"""
SELECT node_id, {_COLUMNS} FROM mesh_nodes INDEXED BY mesh_nodes_silent
WHERE status IN ('ALIVE','SUSPECT') AND last_heartbeat_ms<? ORDER BY last_heartbeat_ms LIMIT {MARKED_MAX}
"""


class Marked(NamedTuple):
    """Members that a round marked, with how long each had been silent, in ms."""

    suspected: tuple[tuple[str, int], ...] = ()
    dead: tuple[tuple[str, int], ...] = ()


class Summary(NamedTuple):
    """Members by status, and running steps by the status of their owner.

    total: those that have left included. unknown: steps whose owner is no member, or has left. spread_ms: between the
    newest and the oldest heartbeat of those that have not left.
    """

    total: int
    alive: int
    suspect: int
    dead: int
    running_by_alive: int
    running_by_suspect: int
    running_by_dead: int
    running_by_unknown: int
    oldest_dead_age_ms: int
    spread_ms: int


# -- one member ------------------------------------------------------------------------------------------------------


def read_row(conn: sqlite3.Connection, node_id: str) -> Row | None:
    """Return a member as the table has it."""
    found = conn.execute(f"SELECT {_COLUMNS} FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone()
    return Row(*found) if found is not None else None


def status_of(conn: sqlite3.Connection, node_id: str) -> str | None:
    """Return the word that the table has for a node, None for one that is not in it."""
    found = conn.execute("SELECT status FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone()
    return str(found[0]) if found is not None else None


def write_row(conn: sqlite3.Connection, node_id: str, known: Row | None, row: Row) -> bool:
    """Store a row over the one that was read; return False when that has changed meanwhile."""
    if known is None:
        return (
            conn.execute(
                f"INSERT OR IGNORE INTO mesh_nodes(node_id, {_COLUMNS}) VALUES (?,?,?,?,?)",
                (node_id, row.status, row.heartbeat_ms, row.updated_ms, row.changed_ms),
            ).rowcount
            == 1
        )
    return (
        conn.execute(
            "UPDATE mesh_nodes SET status=?, last_heartbeat_ms=?, updated_at_ms=?, status_changed_at_ms=?"
            " WHERE node_id=? AND status=? AND last_heartbeat_ms=? AND status_changed_at_ms=?",
            (
                *(row.status, row.heartbeat_ms, row.updated_ms, row.changed_ms),
                *(node_id, known.status, known.heartbeat_ms, known.changed_ms),
            ),
        ).rowcount
        == 1
    )


def take_heartbeat(
    conn: sqlite3.Connection, node_id: str, *, heartbeat_ms: int, now_ms: int, patience: Patience
) -> Heard:
    """Take a heartbeat in, whoever it comes from; a recovery that its dwell time holds back is counted."""
    known = read_row(conn, node_id)
    found = heard(known, heartbeat_ms, now_ms, patience)
    if found.row is not None:
        write_row(conn, node_id, known, found.row)
    if found.suppressed:
        add_counter(conn, RECOVERY_SUPPRESSED, 1)
    return found


def register_node(
    conn: sqlite3.Connection,
    node_id: str,
    *,
    pid: int,
    host: str,
    agents: str,
    now_ms: int,
    patience: Patience | None = None,
) -> int:
    """Enter a starting node with a generation above all earlier ones; return the generation.

    It is ALIVE, unless it is SUSPECT or DEAD and has not been so for its dwell time.
    """
    known = read_row(conn, node_id)
    row = heard(known, max(now_ms, known.heartbeat_ms if known else 0), now_ms, patience or Patience()).row
    assert row is not None, "it is not older than the one that is known"
    first = (buried(conn, node_id, now_ms=now_ms) or 0) + 1
    dig_up(conn, node_id)
    found = conn.execute(
        "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms, generation,"
        " pid, host, agents) VALUES (?,?,?,?,?,?,?,?,?)"
        " ON CONFLICT(node_id) DO UPDATE SET generation=max(generation+1, excluded.generation), pid=excluded.pid,"
        " host=excluded.host, agents=excluded.agents, last_heartbeat_ms=excluded.last_heartbeat_ms,"
        " updated_at_ms=excluded.updated_at_ms, status_changed_at_ms=excluded.status_changed_at_ms,"
        " status=excluded.status RETURNING generation",
        (node_id, row.status, row.heartbeat_ms, row.updated_ms, row.changed_ms, first, pid, host, agents),
    ).fetchone()
    return int(found[0])


def write_heartbeat(
    conn: sqlite3.Connection,
    node_id: str,
    *,
    generation: int,
    status: str,
    agents: str,
    now_ms: int,
    patience: Patience | None = None,
) -> Heard | None:
    """Write a node's own heartbeat; return what it came to, None when a later generation of the id has taken over.

    status: LEFT is taken as it is said; with any other the node has been heard, and what it is follows from that.
    """
    known = read_row(conn, node_id)
    if known is None:
        return None
    at_ms = max(now_ms, known.heartbeat_ms)
    if status == Status.LEFT:
        changed_ms = known.changed_ms if known.status == status else now_ms
        found = Heard(Row(Status.LEFT, at_ms, now_ms, changed_ms))
    else:
        found = heard(known, at_ms, now_ms, patience or Patience())
    row = found.row
    assert row is not None, "it is not older than the one that is known"
    written = conn.execute(
        "UPDATE mesh_nodes SET last_heartbeat_ms=?, updated_at_ms=?, agents=?, status_changed_at_ms=?, status=?"
        " WHERE node_id=? AND generation=?",
        (row.heartbeat_ms, row.updated_ms, agents, row.changed_ms, row.status, node_id, generation),
    ).rowcount
    if not written:
        return None
    if found.suppressed:
        add_counter(conn, RECOVERY_SUPPRESSED, 1)
    return found


# -- silence ---------------------------------------------------------------------------------------------------------


def silent_members(conn: sqlite3.Connection, *, now_ms: int, patience: Patience) -> list[tuple[str, Row, Status]]:
    """Return the members whose silence says something new, longest silent first, with what it says."""
    oldest_ms = now_ms - min(patience.suspect_after_ms, patience.dead_after_ms)
    found = []
    for node_id, *columns in conn.execute(_SILENT, (oldest_ms,)):
        row = Row(*columns)
        verdict = judged(row, now_ms, patience)
        if verdict is not None:
            found.append((node_id, row, verdict))
    return found


def reconcile(conn: sqlite3.Connection, *, now_ms: int, patience: Patience) -> Marked:
    """Mark silent members SUSPECT or DEAD."""
    suspected: list[tuple[str, int]] = []
    dead: list[tuple[str, int]] = []
    for node_id, row, verdict in silent_members(conn, now_ms=now_ms, patience=patience):
        if write_row(conn, node_id, row, Row(verdict, row.heartbeat_ms, now_ms, now_ms)):
            (dead if verdict is Status.DEAD else suspected).append((node_id, now_ms - row.heartbeat_ms))
    return Marked(tuple(suspected), tuple(dead))


# -- what the dead own -----------------------------------------------------------------------------------------------


def dead_members(conn: sqlite3.Connection) -> list[str]:
    """Return the members that are DEAD, by id; at most 10,000."""
    rows = conn.execute(
        "SELECT node_id FROM mesh_nodes WHERE status='DEAD' ORDER BY node_id LIMIT ?", (_MEMBERS_MAX,)
    ).fetchall()
    return [row[0] for row in rows]


def vanished_owners(conn: sqlite3.Connection, run: Path) -> list[str]:
    """Return the owners of running steps whose process, on this machine, has ended; by id."""
    here = host_name()
    owners = conn.execute("SELECT DISTINCT lease_owner FROM steps INDEXED BY steps_running WHERE status='RUNNING'")
    return sorted(owner for (owner,) in owners.fetchall() if owner and is_alive(run, owner, here) is False)


def leases_of(conn: sqlite3.Connection, owners: Iterable[str], *, limit: int) -> list[SeenLease]:
    """Return what these nodes run, least recently renewed first."""
    rows = conn.execute(
        "SELECT id, lease_token, lease_epoch, updated_at_ms, lease_owner, step_id FROM steps INDEXED BY steps_running"
        " WHERE status='RUNNING' AND lease_owner IN (SELECT value FROM json_each(?))"
        " ORDER BY updated_at_ms, id LIMIT ?",
        (id_list(owners), limit),
    ).fetchall()
    return [SeenLease(*row) for row in rows]


def reclaimers(conn: sqlite3.Connection, run: Path, *, now_ms: int, beat_ms: int) -> frozenset[str]:
    """Return the nodes that are alive and take steps back: those that a step's reclaimer is chosen from.

    beat_ms: how often nodes write their heartbeat; who has not for three times as long stands still, perhaps.
    """
    here = host_name()
    rows = conn.execute(
        "SELECT node_id, host, agents FROM mesh_nodes INDEXED BY mesh_nodes_silent"
        " WHERE status='ALIVE' AND last_heartbeat_ms>=? AND host IS NOT NULL"
        " ORDER BY last_heartbeat_ms DESC LIMIT 1000",
        (now_ms - min(3 * beat_ms, HEARTBEAT_STALE_MS),),
    ).fetchall()
    return frozenset(
        node_id
        for node_id, host, agents in rows
        if capabilities_of(agents).reclaims and not (host == here and is_alive(run, node_id, here) is False)
    )


# -- counts ----------------------------------------------------------------------------------------------------------


def summary(conn: sqlite3.Connection, *, now_ms: int) -> Summary:
    """Count members and running steps; costs the members and an index of what runs, whatever the history."""
    nodes: dict[str, str] = dict(conn.execute("SELECT node_id, status FROM mesh_nodes").fetchall())
    by_status: dict[str, int] = {}
    for status in nodes.values():
        by_status[status] = by_status.get(status, 0) + 1
    running: dict[str, int] = {}
    for owner, count in conn.execute(
        "SELECT lease_owner, count(*) FROM steps INDEXED BY steps_running WHERE status='RUNNING' GROUP BY lease_owner"
    ):
        status = nodes.get(owner or "", "")
        running[status] = running.get(status, 0) + count
    known = [running.get(status, 0) for status in (Status.ALIVE, Status.SUSPECT, Status.DEAD)]
    (dead_since_ms,) = conn.execute("SELECT min(status_changed_at_ms) FROM mesh_nodes WHERE status='DEAD'").fetchone()
    # One that has left says nothing any more, and is no member.
    (spread_ms,) = conn.execute(
        "SELECT max(last_heartbeat_ms)-min(last_heartbeat_ms) FROM mesh_nodes WHERE status<>'LEFT'"
    ).fetchone()
    return Summary(
        total=len(nodes),
        alive=by_status.get(Status.ALIVE, 0),
        suspect=by_status.get(Status.SUSPECT, 0),
        dead=by_status.get(Status.DEAD, 0),
        running_by_alive=known[0],
        running_by_suspect=known[1],
        running_by_dead=known[2],
        running_by_unknown=sum(running.values()) - sum(known),
        oldest_dead_age_ms=max(0, now_ms - int(dead_since_ms)) if dead_since_ms is not None else 0,
        spread_ms=int(spread_ms or 0),
    )
