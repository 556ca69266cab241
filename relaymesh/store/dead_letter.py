"""Dead letters: what is listed, given a new start, changed before that, restarted from a step, or discarded.

    DEAD_LETTER ──replayed──▶ PENDING       every dead step of the task, each with its attempts at 0
                ──restarted─▶ PENDING       and a step with all that depends on it, whatever these had come to
                ──discarded─▶ CANCELLED     with a row in ``discards``

Each is one transaction that begins by moving the task out of DEAD_LETTER: whoever comes second finds it moved. The
cluster epoch that the caller looked at is part of the guard.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relaymesh.core.ident import sole_step_id, workflow_step_id
from relaymesh.core.nearest import did_you_mean, quoted
from relaymesh.core.restart import steps_again
from relaymesh.errors import InputError
from relaymesh.store.admin import purging
from relaymesh.store.bulk import id_list
from relaymesh.store.payload import ReadText, Stored

__all__ = [
    "DeadFilter",
    "DeadStep",
    "NoSuchDeadStepError",
    "NotEditableError",
    "dead_steps",
    "dead_steps_of",
    "dead_tasks",
    "discard",
    "edit_input",
    "replay",
    "restart_from",
    "stored_input",
]

KeepText = Callable[[str, str, str], Stored]
"""Kind, owner and text to how it is kept: ``PayloadFiles.keep``."""


class NoSuchDeadStepError(InputError):
    """The task has no step of this name in the state that is asked for. ``hint`` names the nearest, or is empty."""

    code = "no_such_step"

    def __init__(self, step: str, task_id: str, hint: str = "") -> None:
        super().__init__(step, task_id, hint)
        self.step, self.task_id, self.hint = step, task_id, hint

    def __str__(self) -> str:
        return (
            f"task {self.task_id} has no such step {quoted(self.step)}{self.hint}"
            f" (`relaymesh workflow {self.task_id}` shows its steps); nothing was changed"
        )


class NotEditableError(InputError):
    """The input of this step cannot be replaced; the sentence says why."""

    code = "not_editable"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters. A member that is None does not matter.

    error_class: the code of the failure, or the exception's name with which its text begins. text: part of that text,
    in any case. before_ms, after_ms: when the step died, inclusive.
    """

    agent: str | None = None
    error_class: str | None = None
    text: str | None = None
    before_ms: int | None = None
    after_ms: int | None = None

    @property
    def narrows(self) -> bool:
        """Whether it leaves anything out."""
        return self != DeadFilter()


@dataclass(frozen=True, slots=True)
class DeadStep:
    """One dead-lettered step. code: of its last attempt, "" when that left none."""

    task_id: str
    step_id: str
    agent_id: str
    priority: str
    attempt: int
    code: str
    error: str
    created_at_ms: int
    died_at_ms: int


_CODE = "coalesce((SELECT a.code FROM attempts a WHERE a.step_id=s.step_id ORDER BY a.lease_epoch DESC LIMIT 1), '')"
# Every filter stands in the one statement, and what is not asked for is NULL: the index is walked newest first anyway.
_MATCHES = (
    "s.status='DEAD_LETTER' AND (:agent IS NULL OR s.agent_id=:agent)"
    " AND (:before IS NULL OR s.updated_at_ms<=:before) AND (:after IS NULL OR s.updated_at_ms>=:after)"
    " AND (:text IS NULL OR instr(lower(coalesce(s.last_error, '')), lower(:text))>0)"
    f" AND (:class IS NULL OR {_CODE}=:class OR substr(s.last_error, 1, length(:class)+1)=:class||':'"
    " OR s.last_error=:class)"
)


def _values(wanted: DeadFilter) -> dict[str, object]:
    return {
        "agent": wanted.agent,
        "class": wanted.error_class,
        "text": wanted.text,
        "before": wanted.before_ms,
        "after": wanted.after_ms,
    }


def dead_steps(conn: sqlite3.Connection, wanted: DeadFilter, *, limit: int) -> list[DeadStep]:
    """Return dead-lettered steps, the latest death first. Reads the dead letters of the root, at most all of them."""
    rows = conn.execute(
        f"SELECT s.task_id, s.step_id, s.agent_id, s.priority, s.attempt, {_CODE}, coalesce(s.last_error, ''),"
        f" s.created_at_ms, s.updated_at_ms FROM steps s INDEXED BY steps_dead WHERE {_MATCHES}"
        " ORDER BY s.updated_at_ms DESC LIMIT :limit",
        {**_values(wanted), "limit": limit},
    )
    return [DeadStep(*row) for row in rows]


def dead_tasks(conn: sqlite3.Connection, wanted: DeadFilter, *, limit: int) -> list[str]:
    """Return the tasks in DEAD_LETTER that have such a step, the latest death first."""
    rows = conn.execute(
        f"SELECT s.task_id FROM steps s INDEXED BY steps_dead JOIN tasks t ON t.task_id=s.task_id WHERE {_MATCHES}"
        " AND t.status='DEAD_LETTER' GROUP BY s.task_id ORDER BY max(s.updated_at_ms) DESC LIMIT :limit",
        {**_values(wanted), "limit": limit},
    )
    return [task_id for (task_id,) in rows]


def dead_steps_of(conn: sqlite3.Connection, task_id: str) -> list[str]:
    """Return the ids of a task's dead-lettered steps."""
    rows = conn.execute(
        "SELECT step_id FROM steps WHERE task_id=? AND status='DEAD_LETTER' ORDER BY step_id", (task_id,)
    )
    return [step_id for (step_id,) in rows]


def _leave(
    conn: sqlite3.Connection, task_id: str, cluster_epoch: int | None, sql: str, values: Sequence[object]
) -> str:
    """Move the task by a guarded statement; return "", or the code that says why it did not move."""
    epoch = "" if cluster_epoch is None else str(cluster_epoch)
    if task_id == purging(conn):
        return "not_found"
    if conn.execute(sql, (*values, task_id, epoch, epoch)).rowcount:
        return ""
    row = conn.execute("SELECT status FROM tasks WHERE task_id=?", (task_id,)).fetchone()
    if row is None:
        return "not_found"
    return "stale" if row[0] == "DEAD_LETTER" else "invalid_state"


_SAME_EPOCH = "(?='' OR (SELECT state_value FROM cluster_state WHERE state_key='cluster_epoch')=?)"


def replay(conn: sqlite3.Connection, task_id: str, *, cluster_epoch: int | None = None, now_ms: int) -> str:
    """Give every dead-lettered step of a task a new start.

    cluster_epoch: what it was when the caller looked; None does not ask. Returns ``replayed``, ``not_found``,
    ``invalid_state`` or ``stale``.
    """
    refused = _leave(
        conn,
        task_id,
        cluster_epoch,
        "UPDATE tasks SET status='PENDING', last_error=NULL, result_payload=NULL, result_hash=NULL,"
        # An expiry that has passed meanwhile would end the task again before it starts.
        " expires_at_ms=CASE WHEN expires_at_ms>? THEN expires_at_ms END,"
        " finished_at_ms=NULL, updated_at_ms=max(?, updated_at_ms+1) WHERE task_id=? AND status='DEAD_LETTER'"
        f" AND {_SAME_EPOCH}",
        (now_ms, now_ms),
    )
    if refused:
        return refused
    # A map step that could not be spread goes back to where its list is looked at again.
    conn.execute(
        "UPDATE steps SET status='PENDING', attempt=0, worker_deaths=0, owner_deaths=0, last_error=NULL,"
        " queued_at_ms=?, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE task_id=? AND status='DEAD_LETTER'",
        (now_ms, now_ms, task_id),
    )
    return "replayed"


def stored_input(conn: sqlite3.Connection, step_id: str, read_text: ReadText) -> str:
    """Return the input of a step as it is stored, before its references are filled in.

    Raises:
        PayloadMissingError, SealError: its file is lost, or it is encrypted and cannot be opened.
    """
    value, path, of_map = conn.execute(
        "SELECT payload, payload_path, map_parent FROM steps WHERE step_id=?", (step_id,)
    ).fetchone()
    return read_text("payload", of_map or step_id, value, path) or ""


def edit_input(conn: sqlite3.Connection, step_id: str, text: str, keep: KeepText) -> None:
    """Replace the input of a dead-lettered step; the new one is taken as it stands, without references.

    To be followed by ``replay`` in the same transaction.

    Raises:
        NotEditableError: it is not dead any more, or a map step, whose input is made for each of its copies.
        SealError: it is to be encrypted and cannot be.
    """
    row = conn.execute("SELECT map_parent FROM steps WHERE step_id=?", (step_id,)).fetchone()
    # A copy of a map step has the input of the step that it is a copy of, and is read as such.
    kept = keep("payload", (row and row[0]) or step_id, text)
    if not conn.execute(
        "UPDATE steps SET payload=?, payload_path=?, template=0"
        " WHERE step_id=? AND status='DEAD_LETTER' AND map_template IS NULL",
        (kept.value, kept.path or "", step_id),
    ).rowcount:
        raise NotEditableError(
            f"the input of step {step_id} cannot be replaced: it is not dead-lettered, or a map step, whose list comes"
            " from other steps (replay the task --from that step); nothing was changed"
        )


def step_of(conn: sqlite3.Connection, task_id: str, name: str, *, dead: bool) -> str:
    """Return the id of the step that is called so: its name in the workflow file, or its whole id.

    dead: it is to be among the dead-lettered ones; else a copy that a map step made does not count.

    Raises:
        NoSuchDeadStepError
    """
    rows = conn.execute(
        "SELECT step_id FROM steps WHERE task_id=? AND (status='DEAD_LETTER' OR (?=0 AND map_parent IS NULL))"
        " ORDER BY step_id",
        (task_id, int(dead)),
    ).fetchall()
    ids = {step_id for (step_id,) in rows}
    for step_id in (workflow_step_id(task_id, name), name):
        if step_id in ids:
            return step_id
    names = [step_id.removeprefix(f"stp_{task_id}_") for step_id in sorted(ids) if step_id != sole_step_id(task_id)]
    raise NoSuchDeadStepError(name[:120], task_id, did_you_mean(name[:120], names))


def restart_from(conn: sqlite3.Connection, task_id: str, step_id: str, *, now_ms: int) -> int:
    """Let a step and all that depends on it run again; return how many. ``replay`` has moved the task just before.

    What they put out is forgotten, what runs of them is fenced, and the copies that a map step made go, because they
    are made anew out of its list. Everything else keeps what it has come to.
    """
    edges = conn.execute(
        "SELECT step_id, depends_on_step_id FROM step_dependencies"
        " WHERE namespace=(SELECT namespace FROM tasks WHERE task_id=?) AND task_id=?",
        (task_id, task_id),
    )
    again = id_list(sorted(steps_again(step_id, edges)))
    copies = [
        copy
        for (copy,) in conn.execute(
            "SELECT step_id FROM steps WHERE task_id=? AND map_parent IN (SELECT value FROM json_each(?))",
            (task_id, again),
        )
    ]
    for table in ("attempts", "attempt_logs", "steps"):
        conn.execute(f"DELETE FROM {table} WHERE step_id IN (SELECT value FROM json_each(?))", (id_list(copies),))
    conn.execute(
        "UPDATE steps SET status='PENDING', attempt=0, worker_deaths=0, owner_deaths=0, last_error=NULL,"
        " result_payload=NULL, result_path=NULL, lease_owner=NULL, lease_token=NULL, next_retry_at_ms=NULL,"
        " progress=NULL, started_at_ms=NULL, queued_at_ms=?, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE step_id IN (SELECT value FROM json_each(?)) AND status IN ('SUCCESS','RUNNING','RETRYING')",
        (now_ms, now_ms, again),
    )
    # Afterwards, when it is known which of the steps before them are done.
    count = conn.execute(
        "UPDATE steps SET map_index=CASE WHEN map_template IS NULL THEN map_index END,"
        " waiting_on=(map_template IS NOT NULL)+(SELECT count(*) FROM step_dependencies d"
        "  JOIN steps o ON o.step_id=d.depends_on_step_id WHERE d.namespace=steps.namespace"
        "  AND d.task_id=steps.task_id AND d.step_id=steps.step_id AND o.status<>'SUCCESS')"
        " WHERE step_id IN (SELECT value FROM json_each(?)) AND status='PENDING'",
        (again,),
    ).rowcount
    conn.execute(
        "UPDATE steps SET is_enqueued=(waiting_on=0) WHERE step_id IN (SELECT value FROM json_each(?))", (again,)
    )
    conn.execute(
        "UPDATE tasks SET open_steps=(SELECT count(*) FROM steps s WHERE s.task_id=tasks.task_id"
        " AND s.status<>'SUCCESS') WHERE task_id=?",
        (task_id,),
    )
    return count


def discard(
    conn: sqlite3.Connection,
    task_id: str,
    *,
    reason: str,
    actor: str,
    cluster_epoch: int | None = None,
    now_ms: int,
) -> tuple[str, int]:
    """Take a task off the dead letters for good: CANCELLED, with the reason and a row in ``discards``.

    What of it still runs may end, what waits is cancelled with it. Returns ``discarded``, ``not_found``,
    ``invalid_state`` or ``stale``, and how many steps moved.
    """
    refused = _leave(
        conn,
        task_id,
        cluster_epoch,
        "UPDATE tasks SET status='CANCELLED', last_error=?, result_payload=NULL, finished_at_ms=?,"
        f" updated_at_ms=max(?, updated_at_ms+1) WHERE task_id=? AND status='DEAD_LETTER' AND {_SAME_EPOCH}",
        (f"discarded: {reason}", now_ms, now_ms),
    )
    if refused:
        return refused, 0
    steps = conn.execute(
        "UPDATE steps SET status='CANCELLED', next_retry_at_ms=NULL, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE task_id=? AND status IN ('DEAD_LETTER','PENDING','RETRYING')",
        (now_ms, task_id),
    ).rowcount
    conn.execute(
        "INSERT INTO discards(task_id, reason, actor, steps, discarded_at_ms) VALUES (?,?,?,?,?)"
        " ON CONFLICT(task_id) DO UPDATE SET reason=excluded.reason, actor=excluded.actor, steps=excluded.steps,"
        " discarded_at_ms=excluded.discarded_at_ms",
        (task_id, reason, actor, steps, now_ms),
    )
    return "discarded", steps
