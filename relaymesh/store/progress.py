"""The facts behind the question whether a root stands still: what waits, which slots are free, when something moved.

Everything comes from the database and from the locks of the nodes on this machine, so it can be asked from any process,
and a node that hangs is judged by what it does not do. Costs what is ready and running, whatever the history.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

from relaymesh.core.stall import FreeSlots, Waiting, stalled_for_ms
from relaymesh.store.claim import ready_groups
from relaymesh.store.node_row import live_nodes
from relaymesh.store.schema import KEYED_READY, PLAIN_READY
from relaymesh.store.throttle import load_rules

__all__ = ["oldest_ready_ms", "stalled_ms"]

# A standstill under a rain of new tasks: their rows are the newest, and none of them has moved.
_LOOKED_AT_MAX = 20_000
_MOVED = """
SELECT at FROM (
    SELECT updated_at_ms AS at, created_at_ms FROM tasks INDEXED BY tasks_updated
    ORDER BY updated_at_ms DESC LIMIT ?
) WHERE at>created_at_ms LIMIT 1
"""


def stalled_ms(conn: sqlite3.Connection, run: Path, *, now_ms: int) -> int:
    """Return for how long ready steps could have been taken while nothing moved, 0 when there are none."""
    # What waits for a key, for a limit of the root or for the end of a pause stands still on purpose.
    rules = load_rules(conn)
    waiting = {agent: ms for agent, ms in _oldest_plain_ms(conn).items() if not rules.restrains(agent)}
    if not waiting:
        return 0
    running: dict[str, Counter[str]] = {}
    moved_at_ms: int | None = None
    for owner, agent_id, count, started_ms in conn.execute(
        "SELECT lease_owner, agent_id, count(*), max(started_at_ms) FROM steps INDEXED BY steps_running"
        " WHERE status='RUNNING' GROUP BY lease_owner, agent_id"
    ):
        running.setdefault(owner or "", Counter())[agent_id] += count
        moved_at_ms = max(moved_at_ms or 0, started_ms or 0)
    nodes = []
    limits: dict[str, int] = {}
    for node in live_nodes(conn, run, now_ms=now_ms):
        if rules.drains(node.node_id):
            continue
        able = node.capabilities
        used = Counter[str]()
        for agent_id, count in running.get(node.node_id, {}).items():
            used[able.pools.get(agent_id, "")] += count
        free = {pool: slots - used[pool] for pool, slots in able.slots.items()}
        nodes.append(FreeSlots(able.pools, free, _started_ms(conn, run, node.node_id)))
        for agent_id, limit in able.limits.items():
            limits[agent_id] = min(limit, limits.get(agent_id, limit))
    if not nodes:
        return 0
    row = conn.execute(_MOVED, (_LOOKED_AT_MAX,)).fetchone()
    if row is not None:
        moved_at_ms = max(moved_at_ms or 0, row[0])
    total = sum(running.values(), Counter[str]())
    groups = [
        Waiting(agent_id, since_ms, limits[agent_id] - total[agent_id] if agent_id in limits else None)
        for agent_id, since_ms in waiting.items()
    ]
    return max(0, stalled_for_ms(groups, nodes, moved_at_ms=moved_at_ms, now_ms=now_ms))


def oldest_ready_ms(conn: sqlite3.Connection) -> dict[str, int]:
    """Return since when the oldest ready step of each agent waits; a few index seeks for each agent and lane.

    Of steps with a concurrency key, all that are ready are looked at.
    """
    oldest = _oldest_plain_ms(conn)
    for agent_id, since_ms in conn.execute(
        f"SELECT agent_id, min(queued_at_ms) FROM steps INDEXED BY steps_keyed WHERE {KEYED_READY} GROUP BY agent_id"
    ):
        oldest[agent_id] = min(int(since_ms), oldest.get(agent_id, int(since_ms)))
    return oldest


def _oldest_plain_ms(conn: sqlite3.Connection) -> dict[str, int]:
    oldest: dict[str, int] = {}
    for agent_id, priority in ready_groups(conn):
        (since_ms,) = conn.execute(
            "SELECT min(at) FROM ("
            " SELECT * FROM (SELECT queued_at_ms AS at FROM steps INDEXED BY steps_ready"
            f" WHERE agent_id=?1 AND priority=?2 AND queued_at_ms>0 AND {PLAIN_READY} ORDER BY queued_at_ms LIMIT 1)"
            # A row that somebody wrote by hand knows only when it was made.
            " UNION ALL SELECT min(created_at_ms) FROM steps INDEXED BY steps_ready"
            f" WHERE agent_id=?1 AND priority=?2 AND queued_at_ms=0 AND {PLAIN_READY})",
            (agent_id, priority),
        ).fetchone()
        if since_ms is not None:
            oldest[agent_id] = min(int(since_ms), oldest.get(agent_id, int(since_ms)))
    return oldest


def _started_ms(conn: sqlite3.Connection, run: Path, node_id: str) -> int:
    """Return when a node started, as far as it can be told: a lock is written at the start, on this machine."""
    (changed_ms,) = conn.execute("SELECT status_changed_at_ms FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone()
    try:
        return max(int(changed_ms), (run / f"{node_id}.lock").stat().st_mtime_ns // 1_000_000)
    except (OSError, ValueError):
        return int(changed_ms)
