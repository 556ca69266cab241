"""Listing tasks page by page, newest change first.

A cursor is the place of a row in that order, ``<updated_at_ms>:<task_id>``; the page after it holds what changed
before. Between two pages tasks may change, which moves them to the front. So a walk over all pages shows no task
twice, each task that does not change meanwhile once, and may miss one that does: it may have moved behind its back.

A page looks at ``LOOKED_AT_MAX`` tasks at most: with a filter that few fit it ends early, perhaps empty, with a
cursor.
"""

from __future__ import annotations

import sqlite3

from relaymesh.core.limit import INSTANT_MS_MAX
from relaymesh.errors import InputError
from relaymesh.store.schema import RARE
from relaymesh.view import TaskPage, TaskSummary

__all__ = ["LOOKED_AT_MAX", "OFFSET_MAX", "task_page"]

LOOKED_AT_MAX = 5_000
"""Tasks that one page looks at, or ``limit`` and ``offset`` together where that is more."""

OFFSET_MAX = 5_000
_AT_DIGITS = 19


def task_page(
    conn: sqlite3.Connection,
    *,
    status: str | None = None,
    limit: int,
    offset: int = 0,
    label: tuple[str, str] | None = None,
    after: str | None = None,
) -> TaskPage:
    """Return the page after a cursor, or the first one.

    Raises:
        InputError: the offset is above ``OFFSET_MAX``, or the cursor is none.
    """
    if offset > OFFSET_MAX:
        raise InputError(
            f"offset is {offset}, and at most {OFFSET_MAX} tasks can be left out: go on after the last task of a page,"
            " with --after UPDATED_AT_MS:TASK_ID"
        )
    # Named in each case: left to itself SQLite may walk or sort all of history for a handful of rows.
    index = "tasks_updated"
    where: list[str] = []
    values: list[object] = []
    if status in ("RETRYING", "DEAD_LETTER", "CANCELLED"):
        index = "tasks_rare"
        where += [RARE, "status=?"]
        values.append(status)
    elif status not in (None, "SUCCESS") and not _many_are_open(conn):
        index = "tasks_open"  # to be sorted, so only where they are few
        where += ["finished_at_ms IS NULL", "status=?"]
        values.append(status)
    if after is not None:
        at_ms, task_id = _parse(after)
        where += ["updated_at_ms<=?", "(updated_at_ms<? OR task_id<?)"]
        values += [at_ms, at_ms, task_id]
    fits = "1"
    asked: list[object] = []
    if status is not None and index == "tasks_updated":
        fits = "status=?"
        asked = [status]
    if label is not None:
        fits += " AND json_extract(labels, ?)=?"
        asked += [f'$."{label[0]}"', label[1]]
    look_at = limit + offset if fits == "1" else max(LOOKED_AT_MAX, limit + offset)
    rows = conn.execute(
        f"SELECT {fits}, task_id, status, trace_id, last_error, created_at_ms, updated_at_ms FROM tasks"
        f" INDEXED BY {index}{' WHERE ' + ' AND '.join(where) if where else ''}"
        " ORDER BY updated_at_ms DESC, task_id DESC LIMIT ?",
        (*asked, *values, look_at + 1),
    )
    found: list[TaskSummary] = []
    last: list[object] | None = None
    skipped = 0
    for looked, (fit, *row) in enumerate(rows):
        if len(found) == limit or looked == look_at:
            return TaskPage(tasks=tuple(found), after=f"{last[-1]}:{last[0]}" if last is not None else after)
        last = row
        if fit and skipped < offset:
            skipped += 1
        elif fit:
            found.append(_summary(*row))
    return TaskPage(tasks=tuple(found), after=None)


def _many_are_open(conn: sqlite3.Connection) -> bool:
    (count,) = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_open WHERE finished_at_ms IS NULL LIMIT ?)",
        (LOOKED_AT_MAX + 1,),
    ).fetchone()
    return bool(count > LOOKED_AT_MAX)


def _summary(
    task_id: str, status: str, trace_id: str | None, last_error: str | None, created_at_ms: int, updated_at_ms: int
) -> TaskSummary:
    return TaskSummary(
        task_id=task_id,
        status=status,
        trace_id=trace_id or "",
        last_error=last_error,
        created_at_ms=created_at_ms,
        updated_at_ms=updated_at_ms,
    )


def _parse(cursor: str) -> tuple[int, str]:
    at_ms, colon, task_id = cursor.partition(":")
    digits = at_ms.isascii() and at_ms.isdigit() and len(at_ms) <= _AT_DIGITS
    if not colon or not task_id or not digits or int(at_ms) > INSTANT_MS_MAX:
        raise InputError(
            "after names no place in the list: write updatedAtMs and taskId of the last task of the page before,"
            " such as 1790000000000:tsk_0190a1b2"
        )
    return int(at_ms), task_id
