"""Taking steps back whose owner or worker process has died, or has been silent for too long."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence

from relaymesh.core.limit import INSTANT_MS_MAX
from relaymesh.core.plural import counted
from relaymesh.core.reclaim import OWN_YOUNG_MS
from relaymesh.core.retry import DeadLetter, RetryPolicy, after_owner_death, after_worker_death
from relaymesh.store.conflict import record_conflict, record_conflicts
from relaymesh.store.finish import dead_letter, schedule_retry, task_dead
from relaymesh.store.lease import of_this_epoch
from relaymesh.wire.store import LeaseRef, SeenLease

__all__ = [
    "Reclaimed",
    "lose_attempts",
    "reclaim",
    "requeue_former_generation",
    "running_elsewhere",
    "running_to_judge",
]

PolicyOf = Callable[[str], RetryPolicy]


def lose_attempts(
    conn: sqlite3.Connection,
    leases: Sequence[LeaseRef],
    *,
    error: str,
    cluster_epoch: int,
    worker_id: str,
    policy_of: PolicyOf,
    rng: random.Random,
    now_ms: int,
) -> int | None:
    """Take back steps whose worker process died; return when the first of them is due again."""
    due: list[int] = []
    for lease in of_this_epoch(conn, leases, cluster_epoch, worker_id, now_ms):
        found = conn.execute("SELECT worker_deaths, lease_owner FROM steps WHERE id=?", (lease.row_id,)).fetchone()
        deaths, node_id = found or (0, None)
        decision = after_worker_death(policy_of(lease.agent_id), deaths + 1, now_ms, rng)
        if isinstance(decision, DeadLetter):
            text = (
                f"{error}; it has ended its worker process {counted(deaths + 1, 'time')} and is not run again"
                f" ({decision.reason_code})"
            )
            taken = dead_letter(conn, lease, text, now_ms, died=True)
        else:
            taken = schedule_retry(conn, lease, decision.at_ms, error, now_ms, gives_back=True, died=True)
            due += [decision.at_ms] if taken else []
        if not taken:
            record_conflicts(conn, "failure_commit_conflict", [lease], worker_id=worker_id, now_ms=now_ms)
        else:
            _record_attempt(conn, lease, "worker_died", error, node_id, worker_id, now_ms)
    return min(due, default=None)


class Reclaimed:
    """How many steps a reclaim took, and what they became."""

    __slots__ = ("dead_lettered", "reclaimed", "retry_scheduled")

    def __init__(self) -> None:
        self.reclaimed = self.retry_scheduled = self.dead_lettered = 0


def reclaim(
    conn: sqlite3.Connection,
    leases: Sequence[SeenLease],
    *,
    cause: str,
    policy_of: PolicyOf,
    rng: random.Random,
    now_ms: int,
    at_once: bool = False,
) -> Reclaimed:
    """Take steps from owners that are dead or silent; a row that has changed since it was seen is left alone.

    cause: a key of ``_CAUSES``; ``actors_restarted`` is nobody's death and is not counted.
    at_once: PENDING instead of RETRYING, for a node that takes back its own.
    """
    count = Reclaimed()
    for seen in leases:
        row = conn.execute(
            "SELECT step_id, task_id, agent_id, attempt, owner_deaths, cluster_epoch FROM steps WHERE id=?"
            " AND status='RUNNING' AND lease_token IS ? AND lease_epoch=? AND updated_at_ms=?",
            (seen.row_id, seen.lease_token, seen.lease_epoch, seen.updated_at_ms),
        ).fetchone()
        if row is None:
            kind = "dead_owner_reclaim_conflict" if cause == "owner_dead" else "reclaim_conflict"
            record_conflict(
                conn,
                kind,
                row_id=seen.row_id,
                step_id=None,
                task_id=None,
                worker_id=seen.owner,
                token=seen.lease_token,
                lease_epoch=seen.lease_epoch,
                now_ms=now_ms,
            )
            continue
        step_id, task_id, agent_id, attempt, deaths, cluster_epoch = row
        lease = LeaseRef(
            seen.row_id, step_id, task_id, agent_id, attempt, seen.lease_token or "", seen.lease_epoch, cluster_epoch, 0
        )
        _reclaim_one(
            conn, lease, seen, deaths + (cause != "actors_restarted"), cause, policy_of, rng, now_ms, at_once, count
        )
    return count


_CAUSES = {
    "lease_expired": "the lease of node {owner} expired",
    "owner_dead": "node {owner} died",
    "owner_restarted": "node {owner} was restarted",
    "actors_restarted": "an actor of node {owner} was restarted",
}


def _reclaim_one(
    conn: sqlite3.Connection,
    lease: LeaseRef,
    seen: SeenLease,
    deaths: int,
    cause: str,
    policy_of: PolicyOf,
    rng: random.Random,
    now_ms: int,
    at_once: bool,
    count: Reclaimed,
) -> None:
    error = _CAUSES[cause].format(owner=seen.owner)
    guard = "WHERE id=? AND status='RUNNING' AND lease_token IS ? AND lease_epoch=? AND updated_at_ms=?"
    believed = (seen.row_id, seen.lease_token, seen.lease_epoch, seen.updated_at_ms)
    clear = "lease_owner=NULL, lease_token=NULL, updated_at_ms=max(?, updated_at_ms+1)"
    (task_status,) = conn.execute("SELECT status FROM tasks WHERE task_id=?", (lease.task_id,)).fetchone() or ("",)
    decision = after_owner_death(policy_of(lease.agent_id), deaths, now_ms, rng)
    count.reclaimed += 1
    if task_status == "CANCELLED":
        conn.execute(f"UPDATE steps SET status='CANCELLED', {clear} {guard}", (now_ms, *believed))
    elif isinstance(decision, DeadLetter):
        ends = counted(deaths, "such end")
        text = f"{error}; the step was there at {ends} and is not run again ({decision.reason_code})"
        conn.execute(
            f"UPDATE steps SET status='DEAD_LETTER', last_error=?, owner_deaths=?, {clear} {guard}",
            (text, deaths, now_ms, *believed),
        )
        task_dead(conn, lease.task_id, text, now_ms)
        count.dead_lettered += 1
    elif at_once:
        conn.execute(
            "UPDATE steps SET status='PENDING', attempt=max(0, attempt-1), owner_deaths=?, last_error=?,"
            f" {clear} {guard}",
            (deaths, error, now_ms, *believed),
        )
    else:
        conn.execute(
            "UPDATE steps SET status='RETRYING', next_retry_at_ms=?, attempt=max(0, attempt-1),"
            f" owner_deaths=?, last_error=?, {clear} {guard}",
            (min(decision.at_ms, INSTANT_MS_MAX), deaths, error, now_ms, *believed),
        )
        conn.execute(
            "UPDATE tasks SET status='RETRYING', last_error=?, updated_at_ms=max(?, updated_at_ms+1)"
            " WHERE task_id=? AND status IN ('PENDING','RUNNING','RETRYING')",
            (error, now_ms, lease.task_id),
        )
        count.retry_scheduled += 1
    _record_attempt(conn, lease, cause, error, seen.owner, seen.owner, now_ms)


def _record_attempt(
    conn: sqlite3.Connection,
    lease: LeaseRef,
    outcome: str,
    error: str,
    node_id: str | None,
    worker_id: str,
    now_ms: int,
) -> None:
    conn.execute(
        "INSERT OR IGNORE INTO attempts(step_id, lease_epoch, attempt, outcome, code, error, node_id, worker_id,"
        " started_at_ms, finished_at_ms) VALUES (?,?,?,?,?,?,?,?,NULL,?)",
        (lease.step_id, lease.lease_epoch, lease.attempt, outcome, outcome, error, node_id, worker_id, now_ms),
    )


def requeue_former_generation(
    conn: sqlite3.Connection,
    *,
    node_id: str,
    generation: int,
    policy_of: PolicyOf,
    rng: random.Random,
    now_ms: int,
    died: bool = True,
) -> Reclaimed:
    """Fence what an earlier generation of this node ran; its steps are ready again at once.

    died: the process did, which counts against its steps; False when only its actors were started anew.
    """
    rows = conn.execute(
        "SELECT id, lease_token, lease_epoch, updated_at_ms FROM steps WHERE status='RUNNING' AND lease_owner=?"
        " AND owner_generation<?",
        (node_id, generation),
    ).fetchall()
    leases = [SeenLease(row_id, token, epoch, at, node_id) for row_id, token, epoch, at in rows]
    return reclaim(
        conn,
        leases,
        cause="owner_restarted" if died else "actors_restarted",
        policy_of=policy_of,
        rng=rng,
        now_ms=now_ms,
        at_once=True,
    )


_RUNNING = (
    "SELECT id, lease_token, lease_epoch, updated_at_ms, coalesce(lease_owner, ''), step_id FROM steps"
    " WHERE status='RUNNING' AND (lease_owner IS NOT ?1{or_else}) ORDER BY updated_at_ms LIMIT ?2"
)
_RUNNING_ELSEWHERE = _RUNNING.format(or_else="")
_RUNNING_TO_JUDGE = _RUNNING.format(or_else=" OR abs(updated_at_ms-?3)>=?4")


def running_elsewhere(conn: sqlite3.Connection, *, node_id: str, limit: int) -> list[SeenLease]:
    """Return RUNNING rows of other owners, longest silent first."""
    return [SeenLease(*row) for row in conn.execute(_RUNNING_ELSEWHERE, (node_id, limit))]


def running_to_judge(conn: sqlite3.Connection, *, own: str, now_ms: int, limit: int) -> list[SeenLease]:
    """Return what a judge on node ``own`` has to look at: RUNNING rows of others, and its own that nobody renews.

    Own rows that were written within OWN_YOUNG_MS of the wall clock, before or after, are left out: a busy node has a
    thousand of them, and they are renewed or end long before anybody would judge them. Longest silent first.
    """
    return [SeenLease(*row) for row in conn.execute(_RUNNING_TO_JUDGE, (own, limit, now_ms, OWN_YOUNG_MS))]
