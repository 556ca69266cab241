"""The facts behind ``explain``: what is known about each step of a task and about who could run it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from relaymesh.core.budget import Budgeted, BudgetScope, is_used_up, settled, turns_in_ms
from relaymesh.core.explain import BudgetSpent, Dependency, LimitReached, Paused, StepFacts, explain
from relaymesh.core.status import StepStatus, TaskStatus
from relaymesh.core.throttle import Limit, LimitScope, Rules, room_of
from relaymesh.store.budget import owners_of, rows_of
from relaymesh.store.node_row import NodeRow, live_nodes
from relaymesh.store.paused import pauses as pauses_of
from relaymesh.store.paused import stopping_nodes, unwell_nodes
from relaymesh.store.presence import host_name, is_alive
from relaymesh.store.throttle import load_rules, running_of, stored_bucket
from relaymesh.view import Explanation

__all__ = ["explanations"]

STEPS_SHOWN_MAX = 1_000


def explanations(
    conn: sqlite3.Connection, run: Path, task_id: str, *, lease_timeout_ms: int, now_ms: int, pauses: bool = True
) -> list[Explanation]:
    """Return one explanation for each step that has not succeeded, at most ``STEPS_SHOWN_MAX``.

    pauses: whether a worker whose own node is not ALIVE takes nothing.
    """
    (task_status,) = conn.execute("SELECT status FROM tasks WHERE task_id=?", (task_id,)).fetchone()
    nodes = live_nodes(conn, run, now_ms=now_ms) + [node for node, _ in unwell_nodes(conn, run)]
    held = pauses_of(conn, run, now_ms=now_ms) if pauses and nodes else {}
    stopping = stopping_nodes(run, now_ms=now_ms) if nodes else frozenset()
    running = _running_by_agent(conn)
    dependencies = _dependencies(conn, task_id)
    host = host_name()
    rules = load_rules(conn)
    found = []
    for row in conn.execute(
        "SELECT step_id, agent_id, status, attempt, lease_owner, updated_at_ms, started_at_ms, queued_at_ms,"
        " next_retry_at_ms, not_before_ms, delayed, priority, concurrency_key FROM steps"
        " WHERE task_id=? AND status<>'SUCCESS' ORDER BY step_id LIMIT ?",
        (task_id, STEPS_SHOWN_MAX),
    ).fetchall():
        step_id, agent_id, status, attempt, owner, updated, started, queued, retry_at, not_before, delayed, *rest = row
        priority, key = rest
        pause = rules.pause_of(agent_id, priority)
        takers = [
            node
            for node in nodes
            if not rules.drains(node.node_id) and node.node_id not in held and node.node_id not in stopping
        ]
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
            owner_alive=_lives(conn, run, owner, host),
            lease_age_ms=max(0, now_ms - updated),
            lease_timeout_ms=lease_timeout_ms,
            live_nodes=len(nodes),
            paused_nodes=len(nodes) - len(takers),
            node_pause=next((held[node.node_id] for node in nodes if node.node_id in held), ""),
            agent_nodes=tuple(node.node_id for node in takers if agent_id in node.capabilities.pools),
            agent_running=running.get(agent_id, 0),
            # One that was set for the root beats the one in the code.
            agent_limit=None if _set_for(rules, agent_id) else _limit(nodes, agent_id),
            free_slots=_free_slots(takers, agent_id, running),
            paused=Paused(*pause, rules.pauses[pause]) if pause is not None else None,
            limit_reached=_limit_reached(conn, rules, agent_id, key, now_ms) if rules.limits else None,
            budget_spent=_budget_spent(conn, rules.budgets, task_id, agent_id, key, now_ms) if rules.budgets else None,
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


def _lives(conn: sqlite3.Connection, run: Path, owner: str | None, host: str) -> bool:
    """Whether an owner is alive, as far as its process and the member table say."""
    if not owner:
        return True
    row = conn.execute("SELECT status FROM mesh_nodes WHERE node_id=?", (owner,)).fetchone()
    return (row is None or row[0] != "DEAD") and is_alive(run, owner, host) is not False


def _set_for(rules: Rules, agent_id: str) -> bool:
    limit = rules.of_agent(agent_id)
    return limit is not None and limit.max_concurrency is not None


def _limit_reached(
    conn: sqlite3.Connection, rules: Rules, agent_id: str, key: str | None, now_ms: int
) -> LimitReached | None:
    """Return the first limit of the root that leaves no room for a step: overall, of its agent, of its key."""
    applying: list[tuple[LimitScope, str, Limit | None]] = [
        (LimitScope.OVERALL, "", rules.overall),
        (LimitScope.AGENT, agent_id, rules.of_agent(agent_id)),
    ]
    if key is not None:
        applying.append((LimitScope.KEY, key, rules.of_key(key)))
    for scope, name, limit in applying:
        if limit is None:
            continue
        running = running_of(conn, scope, name)
        room = room_of(limit, running, stored_bucket(conn, scope, name), now_ms)
        if room.hold is not None:
            return LimitReached(scope, name, limit, running, room.hold.due_in_ms)
    return None


def _budget_spent(
    conn: sqlite3.Connection, budgeted: Budgeted, task_id: str, agent_id: str, key: str | None, now_ms: int
) -> BudgetSpent | None:
    """Return the first budget that is used up for a step: of its task, of its agent, of its key."""
    rows = rows_of(conn, owners_of(budgeted, agent_id, key or "", task_id))
    for scope in (BudgetScope.TASK, BudgetScope.AGENT, BudgetScope.KEY):
        for row in (row for its in rows.values() for row in its if row.scope is scope):
            if is_used_up(row.budget, row.purse, now_ms):
                spent = settled(row.budget, row.purse, now_ms).spent
                return BudgetSpent(scope, row.name, row.kind, row.budget, spent, turns_in_ms(row.budget, now_ms))
    return None


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
