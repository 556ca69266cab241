"""What each run of a schedule may spend: kept with the budgets, given to each task that a tick becomes.

A row of the scope ``schedule`` is a pattern. Nothing is ever charged to it, and claims do not look at it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

__all__ = ["SCOPE", "forget_schedule_budget", "schedule_budget", "schedule_budgets", "store_schedule_budget"]

SCOPE: Final = "schedule"


def store_schedule_budget(
    conn: sqlite3.Connection, schedule_id: str, budget: Iterable[tuple[str, int]], *, now_ms: int
) -> None:
    """Store the budget of a new schedule, ``(kind, micros)``; the caller holds the write transaction."""
    conn.executemany(
        f"INSERT INTO budgets(scope, name, kind, amount, updated_at_ms) VALUES ('{SCOPE}',?,?,?,?)",
        [(schedule_id, kind, amount, now_ms) for kind, amount in budget],
    )


def schedule_budget(conn: sqlite3.Connection, schedule_id: str) -> tuple[tuple[str, int], ...]:
    """Return the budget of each run of a schedule, sorted by kind."""
    return schedule_budgets(conn, [schedule_id]).get(schedule_id, ())


def schedule_budgets(
    conn: sqlite3.Connection, schedule_ids: Sequence[str]
) -> Mapping[str, tuple[tuple[str, int], ...]]:
    """Return the budgets of those of these schedules that have one."""
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for name, kind, amount in conn.execute(
        f"SELECT name, kind, amount FROM budgets WHERE scope='{SCOPE}' AND name IN (SELECT value FROM json_each(?))"
        " ORDER BY name, kind",
        (json.dumps(schedule_ids),),
    ):
        found[name] = (*found.get(name, ()), (kind, amount))
    return found


def forget_schedule_budget(conn: sqlite3.Connection, schedule_id: str) -> None:
    """Remove the budget of a schedule that is removed itself."""
    conn.execute(f"DELETE FROM budgets WHERE scope='{SCOPE}' AND name=?", (schedule_id,))
