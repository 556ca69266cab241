"""What a success sets free: dependents become ready, map steps are spread out and joined.

    step SUCCESS ──▶ dependents: waiting_on - 1 ──▶ 0: ready
                          │ a map step at 1 (all but itself): its list is known
                          ▼
                     spread: one copy per item, waiting_on = number of copies     no list, or too long: DEAD_LETTER
                          │ last copy SUCCESS
                          ▼
                     joined: SUCCESS with the list of outputs ──▶ its dependents, and so on

All of it in the transaction of the success, in a work list instead of recursion, since a map may feed a map.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from relaymesh.core.ident import workflow_step_id
from relaymesh.core.limit import STEPS_MAX
from relaymesh.core.template import child_id, expand_map, join_outputs
from relaymesh.core.workflow_error import StepInputError
from relaymesh.store.bulk import id_list, write_rows
from relaymesh.store.error import SealError
from relaymesh.store.payload import PayloadFiles, PayloadMissingError, ReadText
from relaymesh.wire.store import SHAPE_MAPS, LeaseRef

__all__ = ["DependencyOutputs", "Settled", "settle_successes", "spread_roots"]

_UNLOCK = """
UPDATE steps SET waiting_on=steps.waiting_on-d.n,
    is_enqueued=CASE WHEN steps.waiting_on=d.n THEN 1 ELSE steps.is_enqueued END,
    queued_at_ms=CASE WHEN steps.waiting_on=d.n THEN ? ELSE steps.queued_at_ms END,
    updated_at_ms=CASE WHEN steps.waiting_on=d.n THEN max(?, steps.updated_at_ms+1) ELSE steps.updated_at_ms END
FROM (SELECT step_id, count(*) AS n FROM step_dependencies WHERE depends_on_step_id IN (SELECT value FROM json_each(?))
      GROUP BY step_id) d
WHERE steps.step_id=d.step_id AND steps.status='PENDING' AND steps.waiting_on>=d.n
RETURNING task_id, waiting_on
"""
_UNLOCK_MAPS = """
UPDATE steps SET waiting_on=steps.waiting_on-d.n
FROM (SELECT map_parent, count(*) AS n FROM steps WHERE map_parent IS NOT NULL
        AND step_id IN (SELECT value FROM json_each(?)) GROUP BY map_parent) d
WHERE steps.step_id=d.map_parent AND steps.status='PENDING' AND steps.waiting_on>=d.n
"""
_OPEN_MAPS = """
SELECT step_id, task_id, namespace, agent_id, priority, payload, payload_path, map_template, map_index, traceparent,
    template, delayed, not_before_ms, concurrency_key
FROM steps INDEXED BY steps_map_open
WHERE map_template IS NOT NULL AND status='PENDING' AND task_id IN (SELECT value FROM json_each(?))
    AND ((map_index IS NULL AND waiting_on=1) OR (map_index IS NOT NULL AND waiting_on=0))
"""
_DEPENDENCIES = """
SELECT d.depends_on_step_id FROM step_dependencies d JOIN steps s ON s.step_id=d.depends_on_step_id
WHERE d.namespace=? AND d.task_id=? AND d.step_id=?
"""
_OUTPUT = (
    _DEPENDENCIES.replace("d.depends_on_step_id FROM", "s.result_payload, s.result_path FROM")
    + " AND d.depends_on_step_id=?"
)
_COPIES = (
    "INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, is_enqueued, status, created_at_ms,"
    " updated_at_ms, payload, payload_path, shape, queued_at_ms, template, map_parent, map_index, map_item,"
    " traceparent, delayed, not_before_ms, concurrency_key) VALUES {rows}"
)


@dataclass(slots=True)
class Settled:
    """What followed from a batch of successes.

    successes: the task of each step that succeeded, joins included. dead_tasks: task to reason.
    released: something may have become ready. ready: task to the number of its steps that did.
    """

    successes: list[str] = field(default_factory=list)
    dead_tasks: dict[str, str] = field(default_factory=dict)
    released: bool = False
    ready: Counter[str] = field(default_factory=Counter)


def settle_successes(
    conn: sqlite3.Connection, leases: Sequence[LeaseRef], *, now_ms: int, payloads: PayloadFiles
) -> Settled:
    """Release what waited on these steps; they have just become SUCCESS in this transaction."""
    settled = Settled(successes=[lease.task_id for lease in leases])
    done = [lease.step_id for lease in leases]
    map_tasks = {lease.task_id for lease in leases if lease.shape & SHAPE_MAPS}
    while done:
        ids = id_list(done)
        for task_id, waiting_on in conn.execute(_UNLOCK, (now_ms, now_ms, ids)).fetchall():
            settled.released = True
            settled.ready[task_id] += waiting_on == 0
        done = []
        if map_tasks:
            conn.execute(_UNLOCK_MAPS, (ids,))
            done = _advance_maps(conn, map_tasks, settled, now_ms, payloads)
    return settled


def spread_roots(conn: sqlite3.Connection, task_ids: Sequence[str], *, now_ms: int, payloads: PayloadFiles) -> Settled:
    """Spread the map steps of new tasks whose list is literal and that wait on nothing else."""
    settled = Settled()
    done = _advance_maps(conn, set(task_ids), settled, now_ms, payloads)
    while done:
        conn.execute(_UNLOCK, (now_ms, now_ms, id_list(done))).fetchall()
        done = _advance_maps(conn, set(task_ids), settled, now_ms, payloads)
    return settled


def _advance_maps(
    conn: sqlite3.Connection, task_ids: set[str], settled: Settled, now_ms: int, payloads: PayloadFiles
) -> list[str]:
    """Spread or join every map step that can be; return the steps that became SUCCESS."""
    joined: list[str] = []
    room: dict[str, int] = {}
    for row in conn.execute(_OPEN_MAPS, (id_list(sorted(task_ids)),)).fetchall():
        step_id, task_id, copies = row[0], row[1], row[8]
        try:
            if copies is None:
                if task_id not in room:
                    room[task_id] = _room(conn, task_id)
                spread = _spread(conn, row, room[task_id], now_ms, payloads)
                room[task_id] -= spread
                if spread:
                    settled.released = True
                    settled.ready[task_id] += spread
                    continue
            _join(conn, step_id, now_ms, payloads)
        except (StepInputError, PayloadMissingError, SealError) as error:
            # Only this step ends: the same transaction carries results that have nothing to do with it.
            _refuse_input(conn, step_id, str(error), now_ms)
            settled.dead_tasks[task_id] = str(error)
            continue
        joined.append(step_id)
        settled.successes.append(task_id)
    return joined


def _room(conn: sqlite3.Connection, task_id: str) -> int:
    """Return how many more steps a task may have."""
    (steps,) = conn.execute("SELECT count(*) FROM steps WHERE task_id=?", (task_id,)).fetchone()
    return max(0, STEPS_MAX - int(steps))


def _spread(conn: sqlite3.Connection, row: Sequence[object], room: int, now_ms: int, payloads: PayloadFiles) -> int:
    """Insert one copy per item, at most ``room``; return how many. With none the step is left for the join."""
    step_id, task_id, namespace, agent_id, priority, payload, path, map_template, _, traceparent, template, *rest = row
    parent = str(step_id)
    outputs = DependencyOutputs(conn, parent, payloads.text)
    over = payloads.text("map", parent, map_template, None)  # type: ignore[arg-type]
    items = expand_map(over or "", outputs, limit=room)
    write_rows(
        conn,
        _COPIES,
        [
            (
                child_id(parent, index),
                namespace,
                task_id,
                agent_id,
                priority,
                1,
                "PENDING",
                now_ms,
                now_ms,
                payload,
                path,
                SHAPE_MAPS,
                now_ms,
                template,
                step_id,
                index,
                payloads.result_in_row("item", child_id(parent, index), item),
                traceparent,
                *rest,
            )
            for index, item in enumerate(items)
        ],
    )
    conn.execute(
        "UPDATE steps SET waiting_on=?, map_index=?, is_enqueued=1, delayed=0, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE step_id=? AND status='PENDING' AND map_index IS NULL",
        (len(items), len(items), now_ms, step_id),
    )
    conn.execute("UPDATE tasks SET open_steps=open_steps+? WHERE task_id=?", (len(items), task_id))
    return len(items)


def _join(conn: sqlite3.Connection, step_id: str, now_ms: int, payloads: PayloadFiles) -> None:
    rows = conn.execute(
        "SELECT step_id, result_payload, result_path FROM steps WHERE map_parent=? ORDER BY map_index", (step_id,)
    ).fetchall()
    output = join_outputs([payloads.text("output", *row) for row in rows])
    conn.execute(
        "UPDATE steps SET status='SUCCESS', result_payload=?, waiting_on=0, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE step_id=? AND status='PENDING'",
        (payloads.result_in_row("output", step_id, output), now_ms, step_id),
    )


def _refuse_input(conn: sqlite3.Connection, step_id: str, error: str, now_ms: int) -> None:
    conn.execute(
        "UPDATE steps SET status='DEAD_LETTER', last_error=?, updated_at_ms=max(?, updated_at_ms+1)"
        " WHERE step_id=? AND status='PENDING'",
        (error, now_ms, step_id),
    )


class DependencyOutputs(Mapping[str, str]):
    """The outputs of the steps that ``step_id`` depends on, by the id that the workflow file gives them.

    Each is read when it is asked for: most runs of a map step use their item and not the list that it came from, and an
    input that outgrows its limit is refused before the rest of what it names fills the memory.
    """

    def __init__(self, conn: sqlite3.Connection, step_id: str, read_text: ReadText) -> None:
        self._conn = conn
        self._step_id = step_id
        self._read_text = read_text
        self._place: tuple[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        namespace, task_id = self._at()
        ids = (workflow_step_id(task_id, name), name)  # or a row that a script wrote, which is called as it is
        for step_id in ids:
            row = self._conn.execute(_OUTPUT, (namespace, task_id, self._step_id, step_id)).fetchone()
            if row is not None:
                return self._read_text("output", step_id, *row) or ""
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        namespace, task_id = self._at()
        rows = self._conn.execute(_DEPENDENCIES, (namespace, task_id, self._step_id)).fetchall()
        return (step_id.removeprefix(workflow_step_id(task_id, "")) for (step_id,) in rows)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _at(self) -> tuple[str, str]:
        if self._place is None:
            row = self._conn.execute(
                "SELECT namespace, task_id FROM steps WHERE step_id=?", (self._step_id,)
            ).fetchone()
            self._place = ("", "") if row is None else (str(row[0]), str(row[1]))
        return self._place
