"""What a task has spent, for people and exports: its budgets, and what its attempts reported."""

from __future__ import annotations

import sqlite3
from collections import Counter

from relaymesh.core.budget import BudgetScope
from relaymesh.core.budget_text import amount_text
from relaymesh.store.budget_rows import budget_rows

__all__ = ["ATTEMPTS_SHOWN_MAX", "spending_of_task"]

ATTEMPTS_SHOWN_MAX = 10_000
"""Amounts of single attempts that are shown; the sums count all of them."""


def spending_of_task(conn: sqlite3.Connection, task_id: str) -> dict[str, object]:
    """Return what a task may spend and what was spent for it, amounts as text; a read.

    Attempts are counted only on a root that had a budget which they were charged to; without, all of it is empty.
    """
    rows = conn.execute(
        "SELECT a.step_id, a.lease_epoch, a.kind, a.spent FROM steps s JOIN attempt_spending a ON a.step_id=s.step_id"
        " WHERE s.task_id=? ORDER BY a.step_id, a.lease_epoch, a.kind",
        (task_id,),
    )
    total: Counter[str] = Counter()
    attempts: list[dict[str, object]] = []
    for step_id, lease_epoch, kind, spent in rows:
        total[kind] += spent
        if len(attempts) < ATTEMPTS_SHOWN_MAX:
            attempts.append({"step_id": step_id, "lease_epoch": lease_epoch, "kind": kind, "spent": amount_text(spent)})
    return {
        "budget": [
            {
                "kind": row.kind,
                "amount": amount_text(row.budget.amount),
                "spent": amount_text(row.purse.spent),
                "left": amount_text(row.budget.amount - row.purse.spent),
            }
            for row in budget_rows(conn, BudgetScope.TASK, task_id)
        ],
        "total": {kind: amount_text(spent) for kind, spent in sorted(total.items())},
        "attempts": attempts,
    }
