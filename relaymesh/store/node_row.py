"""What a node writes about itself into ``mesh_nodes``, and what others read there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from relaymesh.store.presence import host_name, is_alive

__all__ = ["HEARTBEAT_STALE_MS", "Capabilities", "NodeRow", "capabilities_of", "live_nodes"]

HEARTBEAT_STALE_MS = 30_000
"""A node of another machine counts as alive for this long after its last heartbeat."""

_NODES_MAX = 1_000


class Capabilities(msgspec.Struct, frozen=True):
    """What a node can run: agent id to slot pool, agents with a limit, and slots per pool.

    reclaims: whether it takes back steps of dead and silent owners.
    """

    pools: dict[str, str] = {}
    limits: dict[str, int] = {}
    slots: dict[str, int] = {}
    reclaims: bool = True

    def to_json(self) -> str:
        """Return the text of the column ``agents``."""
        return msgspec.json.encode(self).decode()


_DECODER = msgspec.json.Decoder(Capabilities)  # at import: relaymesh.wire.typed says why


class NodeRow(msgspec.Struct, frozen=True):
    """A node that is alive as far as this process can tell."""

    node_id: str
    last_heartbeat_ms: int
    capabilities: Capabilities


def live_nodes(conn: sqlite3.Connection, run: Path, *, now_ms: int) -> list[NodeRow]:
    """Return the nodes of the root that are alive: by their lock on this machine, by their heartbeat elsewhere.

    A member that has never registered here as a node (a command sent its heartbeat, somebody wrote its row, it is
    of another root) has no host, and is none.
    """
    here = host_name()
    rows = conn.execute(
        "SELECT node_id, last_heartbeat_ms, host, agents FROM mesh_nodes WHERE status='ALIVE' AND host IS NOT NULL"
        " ORDER BY last_heartbeat_ms DESC LIMIT ?",
        (_NODES_MAX,),
    ).fetchall()
    live = []
    for node_id, heartbeat_ms, host, agents in rows:
        alive = is_alive(run, node_id, here) if host == here else None
        if alive is False or (alive is None and now_ms - heartbeat_ms > HEARTBEAT_STALE_MS):
            continue
        live.append(NodeRow(node_id, heartbeat_ms, capabilities_of(agents)))
    return live


def capabilities_of(agents: str | None) -> Capabilities:
    """Return what the column ``agents`` says; nothing for a row that somebody else wrote."""
    try:
        return _DECODER.decode(agents or "{}")
    except msgspec.DecodeError:
        return Capabilities()
