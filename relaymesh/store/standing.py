"""How a root stands at one moment: members, lanes, slots, what runs, what is in trouble. Reads; costs no history.

Each list is cut at a stated length, and each query goes by an index of what is open or by a window of what ended last.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from relaymesh.core.percentile import percentiles
from relaymesh.core.priority import PRIORITIES
from relaymesh.core.throttle import PauseScope, Rules
from relaymesh.status_view import (
    MEMBERS_MAX,
    ROWS_MAX,
    WINDOW_MS,
    StatusLane,
    StatusMember,
    StatusPool,
    StatusRunning,
    StatusTrouble,
)
from relaymesh.store.node_row import NodeRow
from relaymesh.store.presence import host_name, is_alive

__all__ = ["Window", "lanes", "members", "pools", "running", "totals", "trouble", "window"]

_TASKS_LOOKED_MAX = 2_000
_ERROR_CHARS_MAX = 400


@dataclass(frozen=True, slots=True)
class Window:
    """What ended lately. latencies: priority to ms from making to end, of each step. per_s: steps a second."""

    latencies: Mapping[str, list[int]]
    per_s: float


def window(conn: sqlite3.Connection, *, now_ms: int) -> Window:
    """Return what ended within the last minute, of the 2,000 tasks that changed last."""
    since_ms = now_ms - WINDOW_MS
    latencies: dict[str, list[int]] = {}
    ended, oldest_ms = 0, now_ms
    (looked,) = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_updated WHERE updated_at_ms>=? LIMIT ?)",
        (since_ms, _TASKS_LOOKED_MAX),
    ).fetchone()
    for priority, at_ms, took_ms in conn.execute(
        "SELECT s.priority, s.updated_at_ms, s.updated_at_ms-s.created_at_ms FROM"
        " (SELECT task_id FROM tasks INDEXED BY tasks_updated WHERE updated_at_ms>=?1"
        "  ORDER BY updated_at_ms DESC LIMIT ?2) t"
        " JOIN steps s ON s.task_id=t.task_id"
        " WHERE s.status IN ('SUCCESS','DEAD_LETTER','CANCELLED') AND s.updated_at_ms>=?1 LIMIT ?3",
        (since_ms, _TASKS_LOOKED_MAX, 2 * _TASKS_LOOKED_MAX),
    ):
        latencies.setdefault(priority, []).append(max(0, took_ms))
        ended += 1
        oldest_ms = min(oldest_ms, at_ms)
    cut = looked >= _TASKS_LOOKED_MAX or ended >= 2 * _TASKS_LOOKED_MAX
    span_ms = max(1, now_ms - oldest_ms) if cut else WINDOW_MS
    return Window(latencies, ended * 1000 / span_ms)


def lanes(waits: Mapping[str, int], seen: Window, rules: Rules) -> tuple[StatusLane, ...]:
    """Return the three priorities, the most urgent first. waits: how many steps of each are ready."""
    overall = (PauseScope.OVERALL, "") in rules.pauses
    return tuple(
        _lane(
            priority,
            waits.get(priority, 0),
            seen.latencies.get(priority, []),
            paused=overall or (PauseScope.PRIORITY, priority) in rules.pauses,
        )
        for priority in PRIORITIES
    )


def _lane(priority: str, waits: int, latencies: list[int], *, paused: bool) -> StatusLane:
    p50, p95 = percentiles(latencies, (50, 95)) if latencies else (None, None)
    return StatusLane(
        priority=priority,
        waiting=waits,
        ended=len(latencies),
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        paused=paused,
    )


def members(
    conn: sqlite3.Connection, run: Path, rules: Rules, *, stopping: Collection[str], now_ms: int
) -> tuple[StatusMember, ...]:
    """Return at most 200 members: dead and suspected ones first, those that have left last."""
    owned: dict[str, int] = dict(
        conn.execute(
            "SELECT coalesce(lease_owner, ''), count(*) FROM steps INDEXED BY steps_running WHERE status='RUNNING'"
            " GROUP BY lease_owner"
        ).fetchall()
    )
    here = host_name()
    rows = conn.execute(
        "SELECT n.node_id, n.status, n.last_heartbeat_ms, n.status_changed_at_ms, coalesce(nullif(n.generation, 0),"
        " m.generation, 0), n.host, n.pid,"
        " m.address, CASE WHEN n.status IN ('ALIVE','SUSPECT') THEN m.rtt_us END"
        " FROM mesh_nodes n LEFT JOIN mesh_members m ON m.node_id=n.node_id"
        " ORDER BY CASE n.status WHEN 'DEAD' THEN 0 WHEN 'SUSPECT' THEN 1 WHEN 'ALIVE' THEN 2 ELSE 3 END,"
        " CASE WHEN n.status='ALIVE' THEN 0 ELSE -n.last_heartbeat_ms END, n.node_id LIMIT ?",
        (MEMBERS_MAX,),
    ).fetchall()
    return tuple(
        StatusMember(
            node_id=node_id,
            status=status,
            process_alive=is_alive(run, node_id, here) if host == here else None,
            heartbeat_age_ms=max(0, now_ms - heartbeat_ms),
            status_age_ms=max(0, now_ms - changed_ms),
            rtt_ms=rtt_us / 1000 if rtt_us is not None else None,
            generation=generation,
            host=host,
            pid=pid,
            address=address,
            running=owned.get(node_id, 0),
            drained=rules.drains(node_id),
            stopping=node_id in stopping,
        )
        for node_id, status, heartbeat_ms, changed_ms, generation, host, pid, address, rtt_us in rows
    )


def pools(conn: sqlite3.Connection, nodes: Iterable[NodeRow]) -> tuple[StatusPool, ...]:
    """Return the slots of the nodes that live, and how many of them their steps take."""
    running: dict[str, Counter[str]] = {}
    for owner, agent_id, count in conn.execute(
        "SELECT lease_owner, agent_id, count(*) FROM steps INDEXED BY steps_running WHERE status='RUNNING'"
        " GROUP BY lease_owner, agent_id"
    ):
        running.setdefault(owner or "", Counter())[agent_id] += count
    total, used = Counter[str](), Counter[str]()
    for node in nodes:
        total.update(node.capabilities.slots)
        for agent_id, count in running.get(node.node_id, {}).items():
            pool = node.capabilities.pools.get(agent_id)
            if pool is not None:
                used[pool] += count
    return tuple(StatusPool(pool=pool, used=used[pool], slots=total[pool]) for pool in sorted(total))


def running(conn: sqlite3.Connection, *, now_ms: int) -> tuple[StatusRunning, ...]:
    """Return at most 200 running steps, the one whose lease was renewed longest ago first."""
    return tuple(
        StatusRunning(
            task_id=task_id,
            step_id=step_id,
            agent=agent_id,
            priority=priority,
            attempt=attempt,
            owner=owner or "",
            owner_status=owner_status or "UNKNOWN",
            lease_epoch=lease_epoch,
            lease_age_ms=max(0, now_ms - updated_ms),
            running_ms=max(0, now_ms - (started_ms or updated_ms)),
        )
        for task_id, step_id, agent_id, priority, attempt, owner, owner_status, lease_epoch, updated_ms, started_ms in (
            conn.execute(
                "SELECT s.task_id, s.step_id, s.agent_id, s.priority, s.attempt, s.lease_owner, n.status,"
                " s.lease_epoch, s.updated_at_ms, s.started_at_ms FROM steps s INDEXED BY steps_running"
                " LEFT JOIN mesh_nodes n ON n.node_id=s.lease_owner WHERE s.status='RUNNING'"
                " ORDER BY s.updated_at_ms, s.id LIMIT ?",
                (ROWS_MAX,),
            )
        )
    )


def totals(conn: sqlite3.Connection, limit: int) -> tuple[int, int, int]:
    """Return how many steps run, wait for their retry, and are dead letters; each is answered by an index alone.

    limit: no more of each are counted.
    """
    running, retrying, dead = (
        int(conn.execute(f"SELECT count(*) FROM (SELECT 1 FROM steps {those} LIMIT ?)", (limit,)).fetchone()[0])
        for those in (
            "INDEXED BY steps_running WHERE status='RUNNING'",
            "INDEXED BY steps_retrying WHERE status='RETRYING'",
            "INDEXED BY steps_dead WHERE status='DEAD_LETTER'",
        )
    )
    return running, retrying, dead


def trouble(conn: sqlite3.Connection, *, now_ms: int) -> tuple[StatusTrouble, ...]:
    """Return at most 200 steps: retries, the next one first, in at most half of the room; then the latest deaths."""
    columns = "task_id, step_id, agent_id, status, attempt, updated_at_ms, next_retry_at_ms, last_error"
    retrying = conn.execute(
        f"SELECT {columns} FROM steps INDEXED BY steps_retrying WHERE status='RETRYING'"
        " ORDER BY next_retry_at_ms LIMIT ?",
        (ROWS_MAX // 2,),
    ).fetchall()
    dead = conn.execute(
        f"SELECT {columns} FROM steps INDEXED BY steps_dead WHERE status='DEAD_LETTER'"
        " ORDER BY updated_at_ms DESC LIMIT ?",
        (ROWS_MAX - len(retrying),),
    ).fetchall()
    return tuple(
        StatusTrouble(
            task_id=task_id,
            step_id=step_id,
            agent=agent_id,
            status=status,
            attempt=attempt,
            age_ms=max(0, now_ms - updated_ms),
            next_retry_in_ms=max(0, retry_ms - now_ms) if status == "RETRYING" and retry_ms is not None else None,
            last_error=(error or "")[:_ERROR_CHARS_MAX],
        )
        for task_id, step_id, agent_id, status, attempt, updated_ms, retry_ms, error in [*retrying, *dead]
    )
