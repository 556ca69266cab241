"""Nodes whose process lives and whose worker takes nothing, because of what is thought of the node."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from relaymesh.core.mesh.local import why_paused
from relaymesh.store.node_report import read_reports
from relaymesh.store.node_row import NodeRow, capabilities_of
from relaymesh.store.presence import host_name, is_alive

__all__ = ["pauses", "stopping_nodes", "unwell_nodes"]

_NODES_MAX = 1_000


def unwell_nodes(conn: sqlite3.Connection, run: Path) -> list[tuple[NodeRow, str]]:
    """Return the nodes of this machine that live and are SUSPECT or DEAD all the same, with that word."""
    here = host_name()
    rows = conn.execute(
        "SELECT node_id, last_heartbeat_ms, agents, status FROM mesh_nodes"
        " WHERE status IN ('SUSPECT','DEAD') AND host=? ORDER BY last_heartbeat_ms DESC LIMIT ?",
        (here, _NODES_MAX),
    ).fetchall()
    return [
        (NodeRow(node_id, heartbeat_ms, capabilities_of(agents)), status)
        for node_id, heartbeat_ms, agents, status in rows
        if is_alive(run, node_id, here)
    ]


def pauses(conn: sqlite3.Connection, run: Path, *, now_ms: int) -> dict[str, str]:
    """Return why workers take nothing, by node id: what the member table says, and what the nodes say themselves."""
    found = {node.node_id: why_paused(node.node_id, status) for node, status in unwell_nodes(conn, run)}
    for report in read_reports(run, now_ms=now_ms):
        if report.paused:
            found.setdefault(report.node_id, report.paused)
    return found


def stopping_nodes(run: Path, *, now_ms: int) -> frozenset[str]:
    """Return the nodes that were told to end and wait for what runs: they live, and take nothing new."""
    return frozenset(report.node_id for report in read_reports(run, now_ms=now_ms) if report.stopping)
