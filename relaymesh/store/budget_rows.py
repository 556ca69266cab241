"""Budgets: set, remove, list. Each change tells every process of the root at its next transaction.

The caller holds the write transaction of a change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from relaymesh.core.budget import Budget, BudgetScope, Purse, settled, window_of
from relaymesh.core.limit import BUDGETS_MAX, BUDGETS_PER_OWNER_MAX
from relaymesh.store.budget import Row
from relaymesh.store.control import TooManyRulesError, tell_rules
from relaymesh.store.schedule_budget import SCOPE
from relaymesh.wire.store import NewTask

__all__ = ["budget_rows", "count_budgets", "forget_task_budgets", "remove_budget", "set_budget", "store_task_budgets"]

SHOWN_MAX = 1_000
"""Budgets in one listing; those of agents and keys come first."""

_COLUMNS = "scope, name, kind, amount, period_ms, window_ms, spent"


def set_budget(
    conn: sqlite3.Connection, scope: BudgetScope, name: str, kind: str, budget: Budget, *, now_ms: int
) -> Row:
    """Set a budget; return it. What was spent stays, unless the period is another one: that begins with nothing spent.

    Raises:
        TooManyRulesError: nothing was changed.
    """
    former = conn.execute(
        "SELECT period_ms, window_ms, spent FROM budgets WHERE scope=? AND name=? AND kind=?", (scope, name, kind)
    ).fetchone()
    if former is None:
        _check_count(conn, scope, name)
    if former is not None and former[0] == budget.period_ms:
        purse = settled(budget, Purse(former[2], former[1]), now_ms)
    else:
        purse = Purse(0, window_of(budget, now_ms))
    conn.execute(
        f"INSERT INTO budgets({_COLUMNS}, updated_at_ms) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT(scope, name, kind)"
        " DO UPDATE SET amount=excluded.amount, period_ms=excluded.period_ms, window_ms=excluded.window_ms,"
        " spent=excluded.spent, updated_at_ms=excluded.updated_at_ms",
        (scope, name, kind, budget.amount, budget.period_ms, purse.window_ms, purse.spent, now_ms),
    )
    tell_rules(conn, now_ms)
    return Row(scope, name, kind, budget, purse)


def remove_budget(conn: sqlite3.Connection, scope: BudgetScope, name: str, kind: str, *, now_ms: int) -> bool:
    """Remove a budget and what was spent of it; return whether there was one."""
    removed = conn.execute("DELETE FROM budgets WHERE scope=? AND name=? AND kind=?", (scope, name, kind)).rowcount
    if removed:
        tell_rules(conn, now_ms)
    return removed == 1


def store_task_budgets(
    conn: sqlite3.Connection, tasks: Sequence[NewTask], results: Sequence[tuple[str, bool]], *, now_ms: int
) -> None:
    """Store the budgets that new tasks bring; a duplicate brings none."""
    conn.executemany(
        "INSERT OR IGNORE INTO budgets(scope, name, kind, amount, updated_at_ms) VALUES ('task',?,?,?,?)",
        [
            (task.task_id, kind, amount, now_ms)
            for task, (_, deduplicated) in zip(tasks, results, strict=True)
            if not deduplicated
            for kind, amount in task.budget
        ],
    )


def forget_task_budgets(conn: sqlite3.Connection, task_id: str) -> None:
    """Remove the budgets of a task that is removed itself."""
    conn.execute("DELETE FROM budgets WHERE scope='task' AND name=?", (task_id,))


def budget_rows(
    conn: sqlite3.Connection, scope: BudgetScope | None = None, name: str | None = None, *, limit: int = SHOWN_MAX
) -> list[Row]:
    """Return budgets by scope, name and kind; a read, for people."""
    found = conn.execute(
        f"SELECT {_COLUMNS} FROM budgets WHERE scope<>'{SCOPE}' AND (?1 IS NULL OR scope=?1)"
        " AND (?2 IS NULL OR name=?2) ORDER BY scope, name, kind LIMIT ?3",
        (scope, name, limit),
    ).fetchall()
    return [
        Row(BudgetScope(scope), name, kind, Budget(amount, period_ms), Purse(spent, window_ms))
        for scope, name, kind, amount, period_ms, window_ms, spent in found
    ]


def count_budgets(conn: sqlite3.Connection, *, now_ms: int) -> dict[str, tuple[int, int]]:
    """Return for each scope how many budgets there are, and how many of them have nothing left; a read.

    It looks at all of them: as many as the bounds of agents and keys, and as there are tasks with a budget.
    """
    found = dict.fromkeys(map(str, BudgetScope), (0, 0))
    found |= {
        scope: (there, used_up)
        for scope, there, used_up in conn.execute(
            "SELECT scope, count(*), coalesce(sum(CASE WHEN period_ms IS NOT NULL AND window_ms < ?1 - ?1 % period_ms"
            f" THEN amount=0 ELSE spent>=amount END), 0) FROM budgets WHERE scope<>'{SCOPE}' GROUP BY scope",
            (now_ms,),
        )
    }
    return found


def _check_count(conn: sqlite3.Connection, scope: BudgetScope, name: str) -> None:
    (its,) = conn.execute("SELECT count(*) FROM budgets WHERE scope=? AND name=?", (scope, name)).fetchone()
    if its >= BUDGETS_PER_OWNER_MAX:
        raise TooManyRulesError(f"budgets of {scope} {name}", BUDGETS_PER_OWNER_MAX)
    if scope is not BudgetScope.TASK:
        (count,) = conn.execute("SELECT count(*) FROM budgets WHERE scope IN ('agent', 'key')").fetchone()
        if count >= BUDGETS_MAX:
            raise TooManyRulesError("budgets", BUDGETS_MAX)
