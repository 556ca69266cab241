"""Commit what attempts came to. One event, one transaction: step, task, dependents, log and conflict change together.

    SUCCESS ──▶ dependents: waiting_on - 1, at 0 they are ready     (relaymesh.store.release)
            └─▶ task: open_steps - 1, at 0 it is SUCCESS with the map of all outputs
    failed  ──▶ RETRYING or DEAD_LETTER, as relaymesh.core.retry decides; CANCELLED when the task was cancelled
    snoozed ──▶ RETRYING, the attempt given back

Each write presents token, lease epoch and cluster epoch of the claim. Zero rows changed means that we were fenced: the
result is refused and recorded as a conflict.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from relaymesh.core.limit import INSTANT_MS_MAX
from relaymesh.core.outcome import Failed
from relaymesh.core.retry import DeadLetter, RetryPolicy, after_failure
from relaymesh.store.bulk import id_list, write_rows
from relaymesh.store.conflict import record_conflicts
from relaymesh.store.error import SealError
from relaymesh.store.payload import PayloadFiles, Stored, is_sealed, log_place
from relaymesh.store.release import Settled, settle_successes
from relaymesh.store.result import result_map
from relaymesh.wire.store import SHAPE_SOLE, FinishedStep, LeaseRef

__all__ = [
    "RESULT_BYTES_IN_ROW",
    "FinishResult",
    "Spilled",
    "close_or",
    "commit_reports",
    "dead_letter",
    "finish_tasks",
    "schedule_retry",
    "task_dead",
]

RESULT_BYTES_IN_ROW = 1_048_576
"""A task whose outputs are longer than this in all keeps them with its steps only; readers put the map together."""

Spilled = Mapping[str, Stored]
"""Lease token to how its output is kept, for outputs that are too long for a row or encrypted."""

_SUCCEED = """
UPDATE steps SET status='SUCCESS', result_payload=v.column5, result_path=v.column6, lease_owner=NULL, lease_token=NULL,
    last_error=NULL, updated_at_ms=max(?1, steps.updated_at_ms+1)
FROM (VALUES {rows}) v
WHERE steps.id=v.column1 AND steps.status='RUNNING' AND steps.lease_token=v.column2 AND steps.lease_epoch=v.column3
    AND steps.cluster_epoch=v.column4
"""
_SUCCEED_ONE = """
UPDATE steps SET status='SUCCESS', result_payload=?6, result_path=?7, lease_owner=NULL, lease_token=NULL,
    last_error=NULL, updated_at_ms=max(?1, updated_at_ms+1)
WHERE id=?2 AND status='RUNNING' AND lease_token=?3 AND lease_epoch=?4 AND cluster_epoch=?5
"""
_SOLE_TASK = """
UPDATE tasks SET status='SUCCESS', result_payload=v.column2, result_hash=v.column3, last_error=NULL, open_steps=0,
    finished_at_ms=?1, updated_at_ms=max(?1, tasks.updated_at_ms+1)
FROM (VALUES {rows}) v WHERE tasks.task_id=v.column1 AND tasks.status IN ('PENDING','RUNNING','RETRYING')
"""
_SOLE_TASK_ONE = """
UPDATE tasks SET status='SUCCESS', result_payload=?3, result_hash=?4, last_error=NULL, open_steps=0,
    finished_at_ms=?1, updated_at_ms=max(?1, updated_at_ms+1)
WHERE task_id=?2 AND status IN ('PENDING','RUNNING','RETRYING')
"""
_GUARD = "WHERE id=? AND status='RUNNING' AND lease_token=? AND lease_epoch=? AND cluster_epoch=?"
_LOG = "INSERT OR IGNORE INTO attempt_logs(step_id, lease_epoch, line, attempt, at_ms, level, text) VALUES {rows}"
_ATTEMPT = (
    "INSERT OR IGNORE INTO attempts(step_id, lease_epoch, attempt, outcome, code, error, node_id, worker_id,"
    " started_at_ms, finished_at_ms) VALUES (?,?,?,?,?,?,?,?,?,?)"
)


@dataclass(frozen=True, slots=True)
class FinishResult:
    """refused: rows whose writer was fenced. released: something became ready. due_at_ms: earliest retry set.

    For the audit log, by lease token: fenced, retried, dead. completed: tasks of several steps that are SUCCESS now.
    left_open: tasks of one step that are not, although it is. ready: task to how many of its steps became ready.
    ended: what came to its end here, well or not.
    """

    refused: tuple[int, ...]
    released: bool
    due_at_ms: int | None
    fenced: frozenset[str] = frozenset()
    retried: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    completed: frozenset[str] = frozenset()
    left_open: frozenset[str] = frozenset()
    ready: Mapping[str, int] = field(default_factory=dict)
    ended: Sequence[FinishedStep] = ()


def commit_reports(
    conn: sqlite3.Connection,
    steps: Sequence[FinishedStep],
    *,
    node_id: str,
    cluster_epoch: int,
    spilled: Spilled,
    policy_of: Callable[[str], RetryPolicy],
    rng: random.Random,
    now_ms: int,
    payloads: PayloadFiles,
) -> FinishResult:
    """Commit all reports; the caller holds the write transaction."""
    current = [step for step in steps if step.lease.cluster_epoch == cluster_epoch]
    overtaken = [step for step in steps if step.lease.cluster_epoch != cluster_epoch]
    won = [step for step in current if step.report.kind == "succeeded"]
    late, left_open = _succeed(conn, won, spilled, now_ms)
    refused = [*overtaken, *late]
    due: list[int] = []
    dead: list[str] = []
    retried: list[str] = []
    for step in current:
        if step.report.kind == "succeeded":
            continue
        committed, at_ms = _not_succeeded(conn, step, node_id, policy_of(step.lease.agent_id), rng, now_ms)
        if not committed:
            refused.append(step)
        elif at_ms is not None:
            due.append(at_ms)
            retried.append(step.lease.lease_token)
        else:
            dead.append(step.lease.lease_token)
    # By identity: one commit may carry a late result and the owner's own result of the same row.
    lost = {id(step) for step in refused}
    settled = settle_successes(
        conn,
        [s.lease for s in won if id(s) not in lost and s.lease.shape != SHAPE_SOLE],
        now_ms=now_ms,
        payloads=payloads,
    )
    completed = finish_tasks(conn, settled, now_ms)
    deaths = set(dead)
    ended = [step for step in won if id(step) not in lost] if lost else won
    if deaths:
        ended = [*ended, *(step for step in current if step.lease.lease_token in deaths)]
    _store_logs(conn, [step for step in steps if id(step) not in lost], payloads)
    for step in refused:
        kind = "success_commit_conflict" if step.report.kind == "succeeded" else "failure_commit_conflict"
        record_conflicts(conn, kind, [step.lease], worker_id=step.worker_id, now_ms=now_ms)
    return FinishResult(
        tuple(step.lease.row_id for step in refused),
        settled.released,
        min(due, default=None),
        frozenset(step.lease.lease_token for step in refused),
        frozenset(retried),
        frozenset(dead),
        frozenset(completed),
        left_open,
        settled.ready,
        ended,
    )


def _succeed(
    conn: sqlite3.Connection, won: Sequence[FinishedStep], spilled: Spilled, now_ms: int
) -> tuple[list[FinishedStep], frozenset[str]]:
    """Commit successes; return those that were refused, and tasks of one step that had ended otherwise before."""
    if not won:
        return [], frozenset()
    rows, shared = [_success_row(step, spilled) for step in won], (now_ms,)
    refused: list[FinishedStep] = []
    if len(rows) == 1:
        refused = [] if conn.execute(_SUCCEED_ONE, (*shared, *rows[0])).rowcount else [*won]
    else:
        conn.execute("SAVEPOINT finish")
        if write_rows(conn, _SUCCEED, rows, shared) != len(rows):
            conn.execute("ROLLBACK TO finish")
            refused = [
                step
                for step, row in zip(won, rows, strict=True)
                if not conn.execute(_SUCCEED_ONE, (*shared, *row)).rowcount
            ]
        conn.execute("RELEASE finish")
    lost = {id(step) for step in refused}
    soles = [_sole_task_row(step, spilled) for step in won if step.lease.shape == SHAPE_SOLE and id(step) not in lost]
    left_open: frozenset[str] = frozenset()
    if write_rows(conn, _SOLE_TASK, soles, shared, one=_SOLE_TASK_ONE) != len(soles):
        left_open = frozenset(
            row[0]
            for row in conn.execute(
                "SELECT task_id FROM tasks WHERE task_id IN (SELECT value FROM json_each(?)) AND status<>'SUCCESS'",
                (id_list(str(row[0]) for row in soles),),
            )
        )
    return refused, left_open


def _success_row(step: FinishedStep, spilled: Spilled) -> tuple[object, ...]:
    lease, kept = step.lease, spilled.get(step.lease.lease_token)
    output, path = (step.report.output, None) if kept is None else (kept.value, kept.path)
    return (lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch, output, path)


def _sole_task_row(step: FinishedStep, spilled: Spilled) -> tuple[object, ...]:
    kept = spilled.get(step.lease.lease_token)
    if kept is not None and is_sealed(kept):
        # Not even a hash: short texts can be guessed from one. Readers put the result together from the step.
        return (step.lease.task_id, None, None)
    text, digest = _hashed_result([(step.lease.step_id, step.report.output)])
    return (step.lease.task_id, None if kept is not None else text, digest)


def _hashed_result(outputs: Sequence[tuple[str, str | None]]) -> tuple[str, str]:
    """Return a task's result map, and the SHA-256 of its UTF-8 bytes in hex."""
    text = result_map(outputs)
    return text, hashlib.sha256(text.encode()).hexdigest()


def _not_succeeded(
    conn: sqlite3.Connection,
    step: FinishedStep,
    node_id: str,
    policy: RetryPolicy,
    rng: random.Random,
    now_ms: int,
) -> tuple[bool, int | None]:
    """Commit a failure or a snooze; return whether it was taken, and when the step is due again."""
    lease, report = step.lease, step.report
    if report.kind == "snoozed":
        at_ms = now_ms + max(0, report.for_ms)
        return schedule_retry(conn, lease, at_ms, None, now_ms, gives_back=True), at_ms
    decision = after_failure(
        policy,
        lease.attempt,
        Failed(report.code, report.error, report.retryable, report.retry_after_ms),
        now_ms,
        rng,
    )
    if isinstance(decision, DeadLetter):
        taken, at = dead_letter(conn, lease, report.error, now_ms), None
    else:
        taken, at = schedule_retry(conn, lease, decision.at_ms, report.error, now_ms), decision.at_ms
    if taken:
        conn.execute(
            _ATTEMPT,
            (
                lease.step_id,
                lease.lease_epoch,
                lease.attempt,
                "dead_lettered" if isinstance(decision, DeadLetter) else "failed",
                report.code,
                report.error,
                node_id,
                step.worker_id,
                report.started_at_ms,
                now_ms,
            ),
        )
    return taken, at


def _guard(lease: LeaseRef) -> tuple[object, ...]:
    return (lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch)


def close_or(conn: sqlite3.Connection, lease: LeaseRef, now_ms: int) -> bool | None:
    """Close the step of a cancelled task; return whether that was taken, or None when the task is not cancelled."""
    row = conn.execute("SELECT status FROM tasks WHERE task_id=?", (lease.task_id,)).fetchone()
    if row is None or row[0] != "CANCELLED":
        return None
    closed = conn.execute(
        "UPDATE steps SET status='CANCELLED', lease_owner=NULL, lease_token=NULL, next_retry_at_ms=NULL,"
        f" updated_at_ms=max(?, updated_at_ms+1) {_GUARD}",
        (now_ms, *_guard(lease)),
    ).rowcount
    return closed == 1


def schedule_retry(
    conn: sqlite3.Connection,
    lease: LeaseRef,
    at_ms: int,
    error: str | None,
    now_ms: int,
    *,
    gives_back: bool = False,
    died: bool = False,
) -> bool:
    """Move a RUNNING step of ours to RETRYING; return False when we are fenced.

    gives_back: the attempt does not count. died: its worker process died, which is counted apart.
    """
    closed = close_or(conn, lease, now_ms)
    if closed is not None:
        return closed
    taken = conn.execute(
        "UPDATE steps SET status='RETRYING', next_retry_at_ms=?, lease_owner=NULL, lease_token=NULL,"
        " attempt=max(0, attempt-?), worker_deaths=worker_deaths+?, last_error=coalesce(?, last_error),"
        f" updated_at_ms=max(?, updated_at_ms+1) {_GUARD}",
        (min(at_ms, INSTANT_MS_MAX), int(gives_back), int(died), error, now_ms, *_guard(lease)),
    ).rowcount
    if taken:
        conn.execute(
            "UPDATE tasks SET status='RETRYING', last_error=coalesce(?, last_error),"
            " updated_at_ms=max(?, updated_at_ms+1) WHERE task_id=? AND status IN ('PENDING','RUNNING','RETRYING')",
            (error, now_ms, lease.task_id),
        )
    return taken == 1


def dead_letter(conn: sqlite3.Connection, lease: LeaseRef, error: str, now_ms: int, *, died: bool = False) -> bool:
    """Move a RUNNING step of ours to DEAD_LETTER, and its task with it; return False when we are fenced."""
    closed = close_or(conn, lease, now_ms)
    if closed is not None:
        return closed
    taken = conn.execute(
        "UPDATE steps SET status='DEAD_LETTER', lease_owner=NULL, lease_token=NULL, next_retry_at_ms=NULL,"
        f" worker_deaths=worker_deaths+?, last_error=?, updated_at_ms=max(?, updated_at_ms+1) {_GUARD}",
        (int(died), error, now_ms, *_guard(lease)),
    ).rowcount
    if taken:
        task_dead(conn, lease.task_id, error, now_ms)
    return taken == 1


def task_dead(conn: sqlite3.Connection, task_id: str, error: str, now_ms: int) -> None:
    """Dead-letter a task, unless it has ended otherwise already."""
    conn.execute(
        "UPDATE tasks SET status='DEAD_LETTER', last_error=?, finished_at_ms=?,"
        " updated_at_ms=max(?, updated_at_ms+1) WHERE task_id=? AND status IN ('PENDING','RUNNING','RETRYING')",
        (error, now_ms, now_ms, task_id),
    )


def finish_tasks(conn: sqlite3.Connection, settled: Settled, now_ms: int) -> list[str]:
    """Count successes off their tasks, and finish the tasks that have none left; return those."""
    for task_id, reason in settled.dead_tasks.items():
        task_dead(conn, task_id, reason, now_ms)
    if not settled.successes:
        return []
    for task_id, count in Counter(settled.successes).items():
        conn.execute(
            "UPDATE tasks SET open_steps=open_steps-?, last_error=CASE WHEN status IN ('PENDING','RUNNING','RETRYING')"
            " THEN NULL ELSE last_error END, status=CASE WHEN status IN ('PENDING','RETRYING') THEN 'RUNNING'"
            " ELSE status END, updated_at_ms=max(?, updated_at_ms+1) WHERE task_id=?",
            (count, now_ms, task_id),
        )
    complete = conn.execute(
        "SELECT task_id FROM tasks WHERE task_id IN (SELECT value FROM json_each(?)) AND status IN ('RUNNING')"
        " AND (open_steps<=0 OR (open_steps IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM steps WHERE steps.task_id=tasks.task_id AND steps.status<>'SUCCESS')))",
        (id_list(set(settled.successes)),),
    ).fetchall()
    for (task_id,) in complete:
        _finish_task(conn, task_id, now_ms)
    return [task_id for (task_id,) in complete]


def _finish_task(conn: sqlite3.Connection, task_id: str, now_ms: int) -> None:
    (size, apart) = conn.execute(
        "SELECT coalesce(sum(length(result_payload)), 0), count(result_path) + count(*) FILTER"
        " (WHERE typeof(result_payload)='blob') FROM steps WHERE task_id=?",
        (task_id,),
    ).fetchone()
    text = digest = None
    if not apart and size <= RESULT_BYTES_IN_ROW:
        outputs = conn.execute(
            "SELECT step_id, result_payload FROM steps WHERE task_id=? ORDER BY step_id", (task_id,)
        ).fetchall()
        text, digest = _hashed_result(outputs)
    conn.execute(
        "UPDATE tasks SET status='SUCCESS', result_payload=?, result_hash=?, last_error=NULL, finished_at_ms=?,"
        " updated_at_ms=max(?, updated_at_ms+1) WHERE task_id=? AND status IN ('PENDING','RUNNING','RETRYING')",
        (text, digest, now_ms, now_ms, task_id),
    )


def _store_logs(conn: sqlite3.Connection, steps: Sequence[FinishedStep], payloads: PayloadFiles) -> None:
    steps = [step for step in steps if step.report.log]
    if not steps:
        return
    sealing = payloads.seal.on()
    write_rows(
        conn,
        _LOG,
        [
            (
                s.lease.step_id,
                s.lease.lease_epoch,
                number,
                s.lease.attempt,
                line.at_ms,
                line.level,
                _sealed_line(payloads, s.lease, number, line.text) if sealing else line.text,
            )
            for s in steps
            for number, line in enumerate(s.report.log)
        ],
    )


def _sealed_line(payloads: PayloadFiles, lease: LeaseRef, number: int, text: str) -> str | bytes:
    try:
        return payloads.seal.seal_result("log", log_place(lease.step_id, lease.lease_epoch, number), text)
    except SealError as error:
        # What the attempt came to must not wait for a line; in clear text it may not be kept.
        return f"this line was not kept: {error}"
