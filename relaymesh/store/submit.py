"""Store new tasks, each once per idempotency key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from relaymesh.core.retention import KEEP
from relaymesh.store.admin import KEY_TTL_MS, let_go_of_key
from relaymesh.store.bulk import write_rows
from relaymesh.store.claim import Claimant
from relaymesh.wire.store import SHAPE_SOLE, NewTask

__all__ = ["insert_claimed", "insert_claimed_one", "insert_tasks", "is_direct", "is_plain", "is_sole"]

# What is the same for all rows of a batch is bound once (?1 namespace, ?2 now, ?3 status): binding a value for each
# row costs as much as storing it. WHERE true keeps SQLite from reading ON CONFLICT as the ON of a join.
_TASKS = (
    "INSERT INTO tasks(task_id, namespace, status, idempotency_key, key_live, principal_id, trace_id, created_at_ms,"
    " updated_at_ms, open_steps, expires_at_ms, labels, traceparent)"
    " SELECT column1, ?1, ?3, column2, 1, 'principal:cli', column3, ?2, ?2, column4, column5, column6, column7"
    " FROM (VALUES {rows}) WHERE true ON CONFLICT(idempotency_key) WHERE key_live=1 DO NOTHING"
)
# A list costs twice what the row does, and a program that submits one task has one.
_TASK = (
    "INSERT INTO tasks(task_id, namespace, status, idempotency_key, key_live, principal_id, trace_id, created_at_ms,"
    " updated_at_ms, open_steps, expires_at_ms, labels, traceparent)"
    " VALUES (?4, ?1, ?3, ?5, 1, 'principal:cli', ?6, ?2, ?2, ?7, ?8, ?9, ?10)"
    " ON CONFLICT(idempotency_key) WHERE key_live=1 DO NOTHING"
)
_SOLE_STEPS_RUNNING = (
    "INSERT INTO steps(id, step_id, namespace, task_id, agent_id, priority, payload_path, status, created_at_ms,"
    " updated_at_ms, payload, shape, queued_at_ms, traceparent, attempt, lease_epoch, lease_owner, worker_id,"
    " owner_generation, lease_token, cluster_epoch, started_at_ms)"
    " SELECT column1, column2, ?1, column3, column4, column5, column6, 'RUNNING', ?2, ?2, column7, 1, ?2, column8,"
    " 1, 1, ?3, ?3, ?4, ?5||column1, ?6, ?2 FROM (VALUES {rows})"
)
# The same for a batch in which some have a concurrency key; the others do not pay for a value more.
_SOLE_STEPS_RUNNING_KEYED = _SOLE_STEPS_RUNNING.replace("started_at_ms)", "started_at_ms, concurrency_key)").replace(
    "?2 FROM", "?2, column9 FROM"
)
# One task, on a node that has nothing else to do: SQLite gives its step the next row id, as it does for every row.
_SOLE_STEP_RUNNING = (
    "INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, payload_path, status, created_at_ms,"
    " updated_at_ms, payload, shape, queued_at_ms, traceparent, attempt, lease_epoch, lease_owner, worker_id,"
    " owner_generation, lease_token, cluster_epoch, started_at_ms)"
    " VALUES (?7, ?1, ?8, ?9, ?10, ?11, 'RUNNING', ?2, ?2, ?12, 1, ?2, ?13, 1, 1, ?3, ?3, ?4,"
    " ?5||(SELECT coalesce(max(id), 0) + 1 FROM steps), ?6, ?2)"
)
_SOLE_STEPS = (
    "INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, payload_path, status, created_at_ms,"
    " updated_at_ms, payload, shape, delayed, not_before_ms, queued_at_ms, traceparent)"
    " SELECT column1, ?1, column2, column3, column4, column5, 'PENDING', ?2, ?2, column6, 1, column8 IS NOT NULL,"
    " column8, ?2, column7 FROM (VALUES {rows})"
)
_SOLE_STEP = (
    "INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, payload_path, status, created_at_ms,"
    " updated_at_ms, payload, shape, delayed, not_before_ms, queued_at_ms, traceparent)"
    " VALUES (?3, ?1, ?4, ?5, ?6, ?7, 'PENDING', ?2, ?2, ?8, 1, ?10 IS NOT NULL, ?10, ?2, ?9)"
)
_STEPS = (
    "INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, payload_path, is_enqueued, status,"
    " created_at_ms, updated_at_ms, payload, shape, waiting_on, delayed, not_before_ms, queued_at_ms, template,"
    " map_template, traceparent, concurrency_key)"
    " SELECT column1, ?1, column2, column3, column4, column5, column6, 'PENDING', ?2, ?2, column7, column8, column9,"
    " column10 IS NOT NULL, column10, ?2, column11, column12, column13, column14 FROM (VALUES {rows})"
)
_DEPENDENCIES = (
    "INSERT OR IGNORE INTO step_dependencies(namespace, task_id, step_id, depends_on_step_id, created_at_ms)"
    " VALUES {rows}"
)


def insert_tasks(
    conn: sqlite3.Connection,
    tasks: Sequence[NewTask],
    *,
    namespace: str,
    now_ms: int,
    key_age_ms: Callable[[], int] = lambda: KEY_TTL_MS,
) -> list[tuple[str, bool]]:
    """Insert tasks with their steps; return ``(task_id, deduplicated)`` for each, in order.

    key_age_ms: how long a key is held after the end of its task, 0 for ever; asked for keys of old tasks only.

    A task whose key is live names the task that holds it and stores nothing. The caller holds the write transaction.
    """
    rows = [_task_row(task) for task in tasks]
    shared = (namespace, now_ms)
    fresh, results = _insert_fresh(conn, tasks, rows, (*shared, "PENDING"), key_age_ms)
    sole = [_waiting_step_row(task) for task in fresh if is_plain(task)]
    write_rows(conn, _SOLE_STEPS, sole, shared, one=_SOLE_STEP)
    write_rows(conn, _STEPS, [row for task in fresh if not is_plain(task) for row in _step_rows(task)], shared)
    write_rows(
        conn,
        _DEPENDENCIES,
        [
            (namespace, task.task_id, step.step_id, other, now_ms)
            for task in fresh
            for step in task.steps
            for other in step.depends_on
        ],
    )
    return results


def _insert_fresh(
    conn: sqlite3.Connection,
    tasks: Sequence[NewTask],
    rows: Sequence[Sequence[object]],
    shared: tuple[str, int, str],
    key_age_ms: Callable[[], int],
) -> tuple[Sequence[NewTask], list[tuple[str, bool]]]:
    """Insert the rows of tasks whose keys are not taken; return these tasks, and what became of each."""
    if len(tasks) == 1:
        return _insert_one_by_one(conn, tasks, rows, shared, key_age_ms)
    conn.execute("SAVEPOINT submit")
    if write_rows(conn, _TASKS, rows, shared) == len(rows):
        conn.execute("RELEASE submit")
        return tasks, [(task.task_id, False) for task in tasks]
    # Some key is taken, perhaps by an earlier task of this very batch: find out which, one at a time.
    conn.execute("ROLLBACK TO submit")
    conn.execute("RELEASE submit")
    return _insert_one_by_one(conn, tasks, rows, shared, key_age_ms)


def insert_claimed(
    conn: sqlite3.Connection,
    running: Sequence[NewTask],
    waiting: Sequence[NewTask],
    claimant: Claimant,
    *,
    namespace: str,
    now_ms: int,
) -> int | None:
    """Insert single-step tasks, those in ``running`` with their leases taken; return the row id of the first of these.

    The others of ``running`` have the row ids that follow. Returns None, and changes nothing, when a key is taken.
    """
    shared = (namespace, now_ms)
    conn.execute("SAVEPOINT submit")
    stored = write_rows(conn, _TASKS, [_task_row(task) for task in running], (*shared, "RUNNING"))
    stored += write_rows(conn, _TASKS, [_task_row(task) for task in waiting], (*shared, "PENDING"))
    if stored != len(running) + len(waiting):
        conn.execute("ROLLBACK TO submit")
        conn.execute("RELEASE submit")
        return None
    (first,) = conn.execute("SELECT coalesce(max(id), 0) + 1 FROM steps").fetchone()
    rows = [(row_id, *_sole_step_row(task)) for row_id, task in enumerate(running, first)]
    if all(map(is_plain, running)):
        write_rows(conn, _SOLE_STEPS_RUNNING, rows, (*shared, *claimant))
    else:
        keyed = [(*row, task.steps[0].concurrency_key) for row, task in zip(rows, running, strict=True)]
        write_rows(conn, _SOLE_STEPS_RUNNING_KEYED, keyed, (*shared, *claimant))
    write_rows(conn, _SOLE_STEPS, [_waiting_step_row(task) for task in waiting if is_plain(task)], shared)
    write_rows(conn, _STEPS, [row for task in waiting if not is_plain(task) for row in _step_rows(task)], shared)
    conn.execute("RELEASE submit")
    return int(first)


def insert_claimed_one(
    conn: sqlite3.Connection, task: NewTask, claimant: Claimant, *, namespace: str, now_ms: int
) -> int | None:
    """Insert a single-step task with its lease taken; return the row id of its step.

    Returns None, and changes nothing, when the key is taken.
    """
    shared = (namespace, now_ms)
    if not conn.execute(_TASK, (*shared, "RUNNING", *_task_row(task))).rowcount:
        return None
    return conn.execute(_SOLE_STEP_RUNNING, (*shared, *claimant, *_sole_step_row(task))).lastrowid


def _insert_one_by_one(
    conn: sqlite3.Connection,
    tasks: Sequence[NewTask],
    rows: Sequence[Sequence[object]],
    shared: tuple[str, int, str],
    key_age_ms: Callable[[], int],
) -> tuple[list[NewTask], list[tuple[str, bool]]]:
    fresh: list[NewTask] = []
    results: list[tuple[str, bool]] = []
    for task, row in zip(tasks, rows, strict=True):
        stored = write_rows(conn, _TASKS, [row], shared, one=_TASK)
        # A key whose time is over may not have been let go yet: that happens in rounds, of a node or by hand.
        if not stored and _let_go(conn, task.idempotency_key, shared[1], key_age_ms):
            stored = write_rows(conn, _TASKS, [row], shared, one=_TASK)
        if stored:
            fresh.append(task)
            results.append((task.task_id, False))
            continue
        (holder,) = conn.execute(
            "SELECT task_id FROM tasks WHERE idempotency_key=? AND key_live=1", (task.idempotency_key,)
        ).fetchone()
        results.append((holder, True))
    return fresh, results


def _let_go(conn: sqlite3.Connection, key: str | None, now_ms: int, key_age_ms: Callable[[], int]) -> bool:
    """Let go of a key whose time is over; return whether it was. A duplicate of a new task costs one look."""
    before_ms = now_ms - KEY_TTL_MS
    old = conn.execute(
        "SELECT 1 FROM tasks WHERE idempotency_key=? AND key_live=1 AND finished_at_ms<? AND updated_at_ms<?",
        (key, before_ms, before_ms),
    ).fetchone()
    age_ms = key_age_ms() if old is not None else KEEP
    return age_ms != KEEP and let_go_of_key(conn, key, before_ms=now_ms - age_ms)


def _task_row(task: NewTask) -> tuple[object, ...]:
    return (
        task.task_id,
        task.idempotency_key,
        task.trace_id,
        len(task.steps),
        task.expires_at_ms,
        task.labels,
        task.traceparent,
    )


def is_sole(task: NewTask) -> bool:
    """Say whether the task is a single step, and no workflow."""
    return task.steps[0].shape == SHAPE_SOLE


def is_direct(task: NewTask) -> bool:
    """Say whether it is a single step that is stored whatever else is there: in one go with its claim."""
    return task.steps[0].shape == SHAPE_SOLE and task.unique is None and not task.budget


def is_plain(task: NewTask) -> bool:
    """Say whether it is such a single step, and has no concurrency key."""
    step = task.steps[0]
    return step.shape == SHAPE_SOLE and step.concurrency_key is None and task.unique is None


def _sole_step_row(task: NewTask) -> tuple[object, ...]:
    (step,) = task.steps
    return (
        step.step_id,
        task.task_id,
        step.agent_id,
        step.priority,
        step.payload_path,
        step.stored,
        step.traceparent,
    )


def _waiting_step_row(task: NewTask) -> tuple[object, ...]:
    return (*_sole_step_row(task), task.steps[0].not_before_ms)


def _step_rows(task: NewTask) -> list[tuple[object, ...]]:
    return [
        (
            step.step_id,
            task.task_id,
            step.agent_id,
            step.priority,
            step.payload_path,
            int(not step.waiting_on and step.shape != SHAPE_SOLE),  # roots of a workflow count as dispatched
            step.stored,
            step.shape,
            step.waiting_on,
            step.not_before_ms,
            int(step.template),
            step.map_template if step.sealed_map is None else step.sealed_map,
            step.traceparent,
            step.concurrency_key,
        )
        for step in task.steps
    ]
