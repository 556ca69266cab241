"""Charging attempts for what they have spent, and counting what comes of it. Loaded when somebody has a budget."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from relaymesh.core.budget import BUDGET_EXHAUSTED, Budgeted
from relaymesh.store.budget import Charged, Row, Spending, charge, spending_of
from relaymesh.store.counter import BUDGET_CUT, BUDGET_USED_UP, add_counter
from relaymesh.wire.store import AttemptSpent, FinishedStep, StepCut

__all__ = ["charge_ended", "charge_running"]


def charge_ended(
    conn: sqlite3.Connection, budgeted: Budgeted, steps: Sequence[FinishedStep], now_ms: int
) -> Sequence[Row]:
    """Charge attempts that have ended; return the budgets that this used up."""
    done = _charge(conn, budgeted, spending_of(steps), now_ms)
    cut = sum(step.report.code == BUDGET_EXHAUSTED for step in steps)
    if cut:
        add_counter(conn, BUDGET_CUT, cut)
    return done.used_up


def charge_running(
    conn: sqlite3.Connection, budgeted: Budgeted, attempts: Sequence[AttemptSpent], now_ms: int
) -> tuple[tuple[StepCut, ...], Sequence[Row]]:
    """Charge attempts that are running; return those that have to end, and the budgets that this used up."""
    done = _charge(conn, budgeted, [(attempt.lease, dict(attempt.spent)) for attempt in attempts], now_ms)
    cuts: list[StepCut] = []
    for attempt in attempts:
        lease = attempt.lease
        failed = done.crossed.get((lease.row_id, lease.lease_epoch))
        if failed is not None:
            cuts.append(StepCut(attempt.worker, lease.row_id, lease.lease_token, failed.error, failed.retryable))
    return tuple(cuts), done.used_up


def _charge(conn: sqlite3.Connection, budgeted: Budgeted, spending: Sequence[Spending], now_ms: int) -> Charged:
    done = charge(conn, budgeted, spending, now_ms=now_ms)
    if done.used_up:
        add_counter(conn, BUDGET_USED_UP, len(done.used_up))
    return done
