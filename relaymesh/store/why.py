"""The facts behind ``explain``: what is known about each step of a task and about who could run it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from relaymesh.core.explain import Dependency, StepFacts, explain
from relaymesh.core.status import StepStatus, TaskStatus
from relaymesh.store.node_row import NodeRow, live_nodes
from relaymesh.store.presence import host_name, is_alive
from relaymesh.view import Explanation

__all__ = ["explanations"]

STEPS_SHOWN_MAX = 1_000


def explanations(
    conn: sqlite3.Connection, run: Path, task_id: str, *, lease_timeout_ms: int, now_ms: int
) -> list[Explanation]:
    """Return one explanation for each step that has not succeeded, at most ``STEPS_SHOWN_MAX``."""
    (task_status,) = conn.execute("SELECT status FROM tasks WHERE task_id=?", (task_id,)).fetchone()
    nodes = live_nodes(conn, run, now_ms=now_ms)
    running = _running_by_agent(conn)
    dependencies = _dependencies(conn, task_id)
    host = host_name()
    found = []
    for row in conn.execute(
        "SELECT step_id, agent_id, status, attempt, lease_owner, updated_at_ms, started_at_ms, queued_at_ms,"
        " next_retry_at_ms, not_before_ms, delayed, created_at_ms, map_template FROM steps"
        " WHERE task_id=? AND status<>'SUCCESS' ORDER BY step_id LIMIT ?",
        (task_id, STEPS_SHOWN_MAX),
    ).fetchall():
        step_id, agent_id, status, attempt, owner, updated, started, queued, retry_at, not_before, delayed, *_ = row
        alive = is_alive(run, owner, host) if owner else True
        facts = StepFacts(
            step_id=step_id,
            task_id=task_id,
            agent_id=agent_id,
            status=StepStatus(status),
            task_status=TaskStatus(task_status),
            now_ms=now_ms,
            status_since_ms=_since(status, updated, started, queued),
            attempt=attempt,
            dependencies=tuple(dependencies.get(step_id, ())),
            not_before_ms=retry_at if status == "RETRYING" else (not_before if delayed else None),
            owner=owner,
            owner_alive=alive is not False,
            lease_age_ms=max(0, now_ms - updated),
            lease_timeout_ms=lease_timeout_ms,
            live_nodes=len(nodes),
            agent_nodes=tuple(node.node_id for node in nodes if agent_id in node.capabilities.pools),
            agent_running=running.get(agent_id, 0),
            agent_limit=_limit(nodes, agent_id),
            free_slots=_free_slots(nodes, agent_id, running),
        )
        why = explain(facts)
        found.append(
            Explanation(
                step_id=step_id,
                reason=why.reason.value,
                since_ms=why.since_ms,
                detail=why.sentence,
                command=why.command,
            )
        )
    return found


def _since(status: str, updated: int, started: int | None, queued: int) -> int:
    if status == "RUNNING" and started is not None:
        return int(started)
    if status == "PENDING" and queued:
        return int(queued)
    return int(updated)


def _dependencies(conn: sqlite3.Connection, task_id: str) -> dict[str, list[Dependency]]:
    """Return what each step waits for; a map step waits for its copies too."""
    unmet: dict[str, list[Dependency]] = {}
    for step_id, other, status, updated in conn.execute(
        "SELECT d.step_id, s.step_id, s.status, s.updated_at_ms FROM step_dependencies d"
        " JOIN steps s ON s.step_id=d.depends_on_step_id"
        " WHERE d.task_id=? AND d.namespace=(SELECT namespace FROM tasks WHERE task_id=?)"
        " UNION ALL SELECT map_parent, step_id, status, updated_at_ms FROM steps"
        " WHERE task_id=? AND map_parent IS NOT NULL",
        (task_id, task_id, task_id),
    ):
        unmet.setdefault(step_id, []).append(Dependency(other, StepStatus(status), updated))
    return unmet


def _running_by_agent(conn: sqlite3.Connection) -> dict[str, int]:
    return dict(
        conn.execute("SELECT agent_id, count(*) FROM steps WHERE status='RUNNING' GROUP BY agent_id").fetchall()
    )


def _limit(nodes: list[NodeRow], agent_id: str) -> int | None:
    limits = [n.capabilities.limits[agent_id] for n in nodes if agent_id in n.capabilities.limits]
    return min(limits) if limits else None


def _free_slots(nodes: list[NodeRow], agent_id: str, running: dict[str, int]) -> int:
    """Return the slots of the agent's pool on the nodes that have it, less the steps that use them."""
    slots, used = 0, 0
    for node in nodes:
        pool = node.capabilities.pools.get(agent_id)
        if pool is not None:
            slots += node.capabilities.slots.get(pool, 0)
            used = sum(count for agent, count in running.items() if node.capabilities.pools.get(agent) == pool)
    return max(0, slots - used)
