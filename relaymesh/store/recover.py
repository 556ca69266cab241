"""Leases between claim and commit: renew, give back, lose, reclaim; and what becomes due with time."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from relaymesh.core.limit import INSTANT_MS_MAX
from relaymesh.core.reclaim import OWN_YOUNG_MS
from relaymesh.core.retry import DeadLetter, RetryPolicy, after_owner_death, after_worker_death
from relaymesh.store.bulk import id_list, write_rows
from relaymesh.store.conflict import record_conflict, record_conflicts
from relaymesh.store.error import SealError
from relaymesh.store.finish import close_or, dead_letter, schedule_retry, task_dead
from relaymesh.store.payload import PayloadFiles
from relaymesh.wire.store import LeaseRef, SeenLease

__all__ = [
    "Reclaimed",
    "cancel_reasons",
    "expire_tasks",
    "has_expired",
    "lose_attempts",
    "next_due_ms",
    "promote_due",
    "reclaim",
    "release",
    "renew",
    "requeue_former_generation",
    "restart_waits",
    "running_elsewhere",
    "running_to_judge",
]

PolicyOf = Callable[[str], RetryPolicy]

_RENEW = """
UPDATE steps SET updated_at_ms=max(v.column5, steps.updated_at_ms+1) FROM (VALUES {rows}) v
WHERE steps.id=v.column1 AND steps.status='RUNNING' AND steps.lease_token=v.column2 AND steps.lease_epoch=v.column3
    AND steps.cluster_epoch=v.column4
"""


def renew(
    conn: sqlite3.Connection, leases: Sequence[tuple[int, str, int, int]], *, cluster_epoch: int, now_ms: int
) -> tuple[int, ...]:
    """Renew ``(row_id, token, lease_epoch, cluster_epoch)`` leases; return the rows that are no longer ours."""
    rows = [(*lease, now_ms) for lease in leases if lease[3] == cluster_epoch]
    lost = [lease[0] for lease in leases if lease[3] != cluster_epoch]
    conn.execute("SAVEPOINT renew")
    if write_rows(conn, _RENEW, rows) != len(rows):
        conn.execute("ROLLBACK TO renew")
        lost += [int(row[0]) for row in rows if not write_rows(conn, _RENEW, [row])]
    conn.execute("RELEASE renew")
    return tuple(lost)


def lost_leases(
    conn: sqlite3.Connection, leases: Sequence[tuple[int, int]], *, node_id: str
) -> tuple[tuple[int, int], ...]:
    """Return those of these ``(row_id, lease_epoch)`` leases that the node does not hold any more."""
    held = set(
        conn.execute(
            "SELECT id, lease_epoch FROM steps WHERE id IN (SELECT value FROM json_each(?)) AND status='RUNNING'"
            " AND lease_owner=?",
            (id_list(row_id for row_id, _ in leases), node_id),
        )
    )
    return tuple(lease for lease in leases if lease not in held)


def cancel_reasons(conn: sqlite3.Connection, row_ids: Iterable[int]) -> tuple[tuple[int, str], ...]:
    """Return those of these rows whose task was cancelled, with the reason."""
    return tuple(
        conn.execute(
            "SELECT s.id, coalesce(t.last_error, '') FROM steps s JOIN tasks t ON t.task_id=s.task_id"
            " WHERE s.id IN (SELECT value FROM json_each(?)) AND s.status='CANCELLED' AND t.status='CANCELLED'",
            (id_list(row_ids),),
        )
    )


def store_progress(
    conn: sqlite3.Connection,
    progress: Sequence[tuple[int, str]],
    leases: Sequence[tuple[int, str, int, int]],
    payloads: PayloadFiles,
) -> None:
    """Keep what running agents last said about themselves, of steps under these leases only."""
    held = {lease[0]: lease for lease in leases}
    kept: Iterable[tuple[int, str | bytes]] = progress
    if progress and payloads.seal.on():
        kept = _sealed_progress(conn, progress, payloads)
    conn.executemany(
        "UPDATE steps SET progress=? WHERE id=? AND status='RUNNING' AND lease_token=? AND lease_epoch=?"
        " AND cluster_epoch=?",
        [(text, *held[row_id]) for row_id, text in kept if row_id in held],
    )


def _sealed_progress(
    conn: sqlite3.Connection, progress: Sequence[tuple[int, str]], payloads: PayloadFiles
) -> Iterator[tuple[int, bytes]]:
    for row_id, text in progress:
        row = conn.execute("SELECT step_id FROM steps WHERE id=?", (row_id,)).fetchone()
        if row is not None:
            # A renewal must not wait for what is said beside it.
            with contextlib.suppress(SealError):
                yield row_id, payloads.seal.seal_result("progress", row[0], text)


def _of_this_epoch(
    conn: sqlite3.Connection, leases: Sequence[LeaseRef], cluster_epoch: int, worker_id: str, now_ms: int
) -> list[LeaseRef]:
    """Return the leases that a bump of the cluster epoch has not fenced; the others are refused and recorded."""
    overtaken = [lease for lease in leases if lease.cluster_epoch != cluster_epoch]
    record_conflicts(conn, "failure_commit_conflict", overtaken, worker_id=worker_id, now_ms=now_ms)
    return [lease for lease in leases if lease.cluster_epoch == cluster_epoch]


def release(
    conn: sqlite3.Connection, leases: Sequence[LeaseRef], *, cluster_epoch: int, worker_id: str, now_ms: int
) -> int:
    """Give steps back to the queue without counting the attempt; return how many were still ours."""
    released = 0
    for lease in _of_this_epoch(conn, leases, cluster_epoch, worker_id, now_ms):
        taken = close_or(conn, lease, now_ms)
        if taken is None:
            taken = (
                conn.execute(
                    "UPDATE steps SET status='PENDING', lease_owner=NULL, lease_token=NULL, attempt=max(0, attempt-1),"
                    " updated_at_ms=max(?, updated_at_ms+1)"
                    " WHERE id=? AND status='RUNNING' AND lease_token=? AND lease_epoch=? AND cluster_epoch=?",
                    (now_ms, lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch),
                ).rowcount
                == 1
            )
        released += taken
        if not taken:
            record_conflicts(conn, "failure_commit_conflict", [lease], worker_id=worker_id, now_ms=now_ms)
    return released


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
    for lease in _of_this_epoch(conn, leases, cluster_epoch, worker_id, now_ms):
        found = conn.execute("SELECT worker_deaths, lease_owner FROM steps WHERE id=?", (lease.row_id,)).fetchone()
        deaths, node_id = found or (0, None)
        decision = after_worker_death(policy_of(lease.agent_id), deaths + 1, now_ms, rng)
        if isinstance(decision, DeadLetter):
            text = (
                f"{error}; it has ended its worker process {deaths + 1} times and is not run again"
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
        text = f"{error}; the step was there at {deaths} such ends and is not run again ({decision.reason_code})"
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


def next_due_ms(conn: sqlite3.Connection) -> int | None:
    """Return when the next delayed or retrying step is due, or None."""
    found = conn.execute(
        "SELECT (SELECT min(next_retry_at_ms) FROM steps INDEXED BY steps_retrying WHERE status='RETRYING'),"
        " (SELECT min(not_before_ms) FROM steps INDEXED BY steps_delayed WHERE status='PENDING' AND delayed=1)"
    ).fetchone()
    return min((int(at_ms) for at_ms in found if at_ms is not None), default=None)


def promote_due(conn: sqlite3.Connection, *, now_ms: int, limit: int) -> int:
    """Make steps ready whose time has come, earliest first; return how many."""
    retried = conn.execute(
        "UPDATE steps SET status='PENDING', next_retry_at_ms=NULL, queued_at_ms=?,"
        " updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE id IN (SELECT id FROM steps INDEXED BY steps_retrying WHERE status='RETRYING'"
        " AND next_retry_at_ms<=? ORDER BY next_retry_at_ms LIMIT ?) AND status='RETRYING'",
        (now_ms, now_ms, now_ms, limit),
    ).rowcount
    delayed = conn.execute(
        "UPDATE steps SET delayed=0, queued_at_ms=max(?, coalesce(not_before_ms, 0)),"
        " updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE id IN (SELECT id FROM steps INDEXED BY steps_delayed WHERE status='PENDING' AND delayed=1"
        " AND not_before_ms<=? ORDER BY not_before_ms LIMIT ?) AND status='PENDING' AND delayed=1",
        (now_ms, now_ms, now_ms, limit),
    ).rowcount
    return retried + delayed


def restart_waits(conn: sqlite3.Connection, *, now_ms: int) -> int:
    """Let backoffs begin anew that were set by a wall clock which was then set back; return how many.

    Without it a backoff of a second would last as long as the jump. A wait that was set after the jump is left alone.
    """
    return conn.execute(
        "UPDATE steps SET next_retry_at_ms=?+max(0, next_retry_at_ms-updated_at_ms), updated_at_ms=updated_at_ms+1"
        " WHERE status='RETRYING' AND updated_at_ms>?",
        (now_ms, now_ms),
    ).rowcount


def has_expired(conn: sqlite3.Connection, *, now_ms: int) -> bool:
    """Return whether some task's expiry has passed that has not been seen to."""
    found = conn.execute(
        "SELECT 1 FROM tasks INDEXED BY tasks_expiry WHERE expires_at_ms IS NOT NULL"
        " AND finished_at_ms IS NULL AND expires_at_ms<=? LIMIT 1",
        (now_ms,),
    )
    return found.fetchone() is not None


def expire_tasks(conn: sqlite3.Connection, *, now_ms: int, limit: int) -> list[str]:
    """Cancel what has not been started of tasks whose expiry has passed; return the tasks that changed."""
    tasks = [
        row[0]
        for row in conn.execute(
            "SELECT task_id FROM tasks INDEXED BY tasks_expiry WHERE expires_at_ms IS NOT NULL"
            " AND finished_at_ms IS NULL AND expires_at_ms<=? ORDER BY expires_at_ms LIMIT ?",
            (now_ms, limit),
        )
    ]
    if not tasks:
        return []
    ids = id_list(tasks)
    expired = {
        row[0]
        for row in conn.execute(
            "UPDATE steps SET status='CANCELLED', last_error='expired', next_retry_at_ms=NULL,"
            " updated_at_ms=max(?, updated_at_ms+1)"
            " WHERE task_id IN (SELECT value FROM json_each(?)) AND status IN ('PENDING','RETRYING')"
            " RETURNING task_id",
            (now_ms, ids),
        )
    }
    conn.execute(
        "UPDATE tasks SET status='CANCELLED', last_error='expired', finished_at_ms=?,"
        " updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE task_id IN (SELECT value FROM json_each(?)) AND status IN ('PENDING','RUNNING','RETRYING')",
        (now_ms, now_ms, id_list(expired)),
    )
    # What runs to its end now has no expiry left to look for.
    conn.execute(
        "UPDATE tasks SET expires_at_ms=NULL WHERE task_id IN (SELECT value FROM json_each(?))",
        (id_list(set(tasks) - expired),),
    )
    return sorted(expired)
