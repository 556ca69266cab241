"""Budgets as rows: what claims may begin, and what attempts have spent; the rules are ``relaymesh.core.budget``.

    attempt_spending   what each attempt has reported, in all: a sum that only grows, so that a report which comes late,
                       twice, or from an owner that was fenced since, is charged for what is new of it and no more
    budgets            what was spent of each in its window; raised by what is new, in the same transaction

A killed attempt is charged for what its heartbeats had said; no other word about it is needed. A root without budgets
has neither rows here nor statements that look for them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from relaymesh.core.budget import (
    SPENT_MAX,
    WALL,
    Budget,
    Budgeted,
    BudgetScope,
    Purse,
    charged,
    exhausted,
    is_crossed,
    is_used_up,
    left,
    turns_in_ms,
    unseen,
)
from relaymesh.core.fairness import Candidate
from relaymesh.core.limit import SPEND_MICROS_MAX
from relaymesh.core.outcome import Failed
from relaymesh.store.bulk import id_list, write_rows
from relaymesh.wire.store import FinishedStep, LeaseRef
from relaymesh.wire.work import Allowance

__all__ = [
    "Charged",
    "Owner",
    "Purses",
    "Row",
    "Spending",
    "charge",
    "load_budgeted",
    "owners_of",
    "rows_of",
    "spending_of",
    "task_exhausted",
]

Owner = tuple[BudgetScope, str]
Spending = tuple[LeaseRef, Mapping[str, int]]
"""An attempt, and what it has spent in all, in micros, by kind."""

_COLUMNS = "scope, name, kind, amount, period_ms, window_ms, spent"
_OF_OWNERS = f"""
SELECT {_COLUMNS} FROM budgets WHERE (scope, name) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""
_KEYS = """
SELECT id, concurrency_key FROM steps WHERE concurrency_key IS NOT NULL AND id IN (SELECT value FROM json_each(?))
"""
_FORMER = """
SELECT step_id, lease_epoch, kind, spent FROM attempt_spending WHERE (step_id, lease_epoch) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""
_KEEP = """
INSERT INTO attempt_spending(step_id, lease_epoch, kind, spent)
SELECT column1, column2, column3, column4 FROM (VALUES {rows}) WHERE true
ON CONFLICT(step_id, lease_epoch, kind) DO UPDATE SET spent=max(attempt_spending.spent, excluded.spent)
"""
_CHARGE = """
UPDATE budgets SET window_ms=?1, spent=?2 WHERE scope=?3 AND name=?4 AND kind=?5 AND window_ms=?6 AND spent=?7
"""


class Row(NamedTuple):
    """One budget, and what was spent of it."""

    scope: BudgetScope
    name: str
    kind: str
    budget: Budget
    purse: Purse

    @property
    def owner(self) -> Owner:
        return self.scope, self.name


@dataclass(slots=True)
class Charged:
    """What a charge came to: budgets that it used up, and attempts that have to end, by row and lease epoch."""

    used_up: list[Row] = field(default_factory=list)
    crossed: dict[tuple[int, int], Failed] = field(default_factory=dict)


def load_budgeted(conn: sqlite3.Connection) -> Budgeted | None:
    """Return who has budgets, or None when nobody has."""
    owners: dict[str, set[str]] = {"agent": set(), "key": set()}
    for scope, name in conn.execute("SELECT DISTINCT scope, name FROM budgets WHERE scope IN ('agent', 'key')"):
        owners[scope].add(name)
    tasks = conn.execute("SELECT 1 FROM budgets WHERE scope='task' LIMIT 1").fetchone() is not None
    if not tasks and not any(owners.values()):
        return None
    return Budgeted(frozenset(owners["agent"]), frozenset(owners["key"]), tasks)


def rows_of(conn: sqlite3.Connection, owners: Iterable[Owner]) -> dict[Owner, list[Row]]:
    """Return the budgets of these; only those that have some are in the answer."""
    wanted = sorted(set(owners))
    found: dict[Owner, list[Row]] = {}
    if wanted:
        for scope, name, kind, amount, period_ms, window_ms, spent in conn.execute(_OF_OWNERS, (json.dumps(wanted),)):
            row = Row(BudgetScope(scope), name, kind, Budget(amount, period_ms), Purse(spent, window_ms))
            found.setdefault(row.owner, []).append(row)
    return found


class Purses:
    """What is left for one claim, inside its write transaction; read once for each owner."""

    def __init__(self, conn: sqlite3.Connection, budgeted: Budgeted, now_ms: int) -> None:
        self._conn = conn
        self._budgeted = budgeted
        self._now_ms = now_ms
        self._rows: dict[Owner, list[Row]] = {}
        self._asked: set[Owner] = set()

    def used_up(self, scope: Literal["agent", "key"], names: Iterable[str]) -> dict[str, int | None]:
        """Return those of these agents, or keys, that have nothing left: the ms until they have, None for never."""
        have = self._budgeted.agents if scope == "agent" else self._budgeted.keys
        owners = [(BudgetScope(scope), name) for name in names if name in have]
        found: dict[str, int | None] = {}
        for owner, rows in self._read(owners).items():
            spent = [row for row in rows if is_used_up(row.budget, row.purse, self._now_ms)]
            if spent:
                turns = [turns_in_ms(row.budget, self._now_ms) for row in spent]
                known = [turn for turn in turns if turn is not None]
                found[owner[1]] = max(known) if len(known) == len(turns) else None
        return found

    def allowances(self, pick: Candidate, task_id: str) -> tuple[Allowance, ...]:
        """Return what a step that is claimed now may spend, of each budget that applies."""
        rows = self._read(owners_of(self._budgeted, pick.agent_id, pick.key, task_id))
        return tuple(
            Allowance(str(row.scope), row.name, row.kind, left(row.budget, row.purse, self._now_ms))
            for its in rows.values()
            for row in its
        )

    def read_tasks(self, task_ids: Iterable[str]) -> None:
        """Read the budgets of many tasks in one go."""
        if self._budgeted.tasks:
            self._read((BudgetScope.TASK, task_id) for task_id in task_ids)

    def _read(self, owners: Iterable[Owner]) -> dict[Owner, list[Row]]:
        wanted = list(owners)
        missing = [owner for owner in wanted if owner not in self._asked]
        if missing:
            self._asked.update(missing)
            self._rows.update(rows_of(self._conn, missing))
        return {owner: self._rows[owner] for owner in wanted if owner in self._rows}


def spending_of(steps: Iterable[FinishedStep]) -> list[Spending]:
    """Return what attempts that ended have spent. Who did not measure its time took that from start to end."""
    spending: list[Spending] = []
    for step in steps:
        report = step.report
        spent = dict(report.spent)
        if WALL not in spent:
            spent[WALL] = max(0, report.finished_at_ms - report.started_at_ms) * 1_000
        spending.append((step.lease, spent))
    return spending


def charge(conn: sqlite3.Connection, budgeted: Budgeted, attempts: Sequence[Spending], *, now_ms: int) -> Charged:
    """Charge what is new of what these attempts have spent. The caller holds the write transaction.

    The lease is not asked for: an owner that was fenced has spent it all the same.
    """
    done = Charged()
    concerned = [
        attempt for attempt in attempts if budgeted.tasks or budgeted.keys or attempt[0].agent_id in budgeted.agents
    ]
    if not concerned:
        return done
    keys: dict[int, str] = {}
    if budgeted.keys:
        keys = dict(conn.execute(_KEYS, (id_list({lease.row_id for lease, _ in concerned}),)).fetchall())
    owners = {
        lease.lease_token: owners_of(budgeted, lease.agent_id, keys.get(lease.row_id, ""), lease.task_id)
        for lease, _ in concerned
    }
    rows = rows_of(conn, (owner for its in owners.values() for owner in its))
    concerned = [attempt for attempt in concerned if any(owner in rows for owner in owners[attempt[0].lease_token])]
    if not concerned:
        return done
    new = _new_spending(conn, concerned)
    now: dict[Owner, dict[str, Row]] = {owner: {row.kind: row for row in its} for owner, its in rows.items()}
    for lease, kind, micros in new:
        for owner in owners[lease.lease_token]:
            row = now.get(owner, {}).get(kind)
            if row is not None and micros:
                now[owner][kind] = row._replace(purse=charged(row.budget, row.purse, now_ms, micros))
    for owner, its in rows.items():
        for row in its:
            after = now[owner][row.kind]
            if after.purse != row.purse:
                _write(conn, row, after.purse)
                if is_used_up(row.budget, after.purse, now_ms) and not is_used_up(row.budget, row.purse, now_ms):
                    done.used_up.append(after)
    for lease, _ in concerned:
        for owner in owners[lease.lease_token]:
            crossed = [row for row in now.get(owner, {}).values() if is_crossed(row.budget, row.purse, now_ms)]
            if crossed:
                row = crossed[0]
                done.crossed[lease.row_id, lease.lease_epoch] = exhausted(row.scope, row.name, row.kind)
                break
    return done


def owners_of(budgeted: Budgeted, agent_id: str, key: str, task_id: str) -> list[Owner]:
    """Return whose budgets apply to a step; the task comes first, because what it ends does not wait."""
    owners: list[Owner] = [(BudgetScope.TASK, task_id)] if budgeted.tasks else []
    if agent_id in budgeted.agents:
        owners.append((BudgetScope.AGENT, agent_id))
    if key and key in budgeted.keys:
        owners.append((BudgetScope.KEY, key))
    return owners


def _new_spending(conn: sqlite3.Connection, attempts: Sequence[Spending]) -> list[tuple[LeaseRef, str, int]]:
    """Write down the sums of attempts; return what is new of each."""
    ids = sorted({(lease.step_id, lease.lease_epoch) for lease, _ in attempts})
    former = {(step, epoch, kind): spent for step, epoch, kind, spent in conn.execute(_FORMER, (json.dumps(ids),))}
    new: list[tuple[LeaseRef, str, int]] = []
    rows: dict[tuple[str, int, str], int] = {}
    for lease, spent in attempts:
        for kind, micros in spent.items():
            of = (lease.step_id, lease.lease_epoch, kind)
            total, before = min(micros, SPEND_MICROS_MAX), rows.get(of, former.get(of, 0))
            if total > before:
                rows[of] = total
                new.append((lease, kind, unseen(before, total)))
    write_rows(conn, _KEEP, [(*of, total) for of, total in rows.items()])
    return new


def _write(conn: sqlite3.Connection, row: Row, purse: Purse) -> None:
    assert purse.spent <= SPENT_MAX
    values = (purse.window_ms, purse.spent, row.scope, row.name, row.kind, row.purse.window_ms, row.purse.spent)
    written = conn.execute(_CHARGE, values).rowcount
    assert written == 1, "the write transaction keeps everybody else out"


def task_exhausted(allowances: Iterable[Allowance]) -> Failed | None:
    """Return how a step ends whose task has nothing left: it is not begun."""
    for allowance in allowances:
        if allowance.left <= 0 and allowance.scope == BudgetScope.TASK:
            return exhausted(BudgetScope.TASK, allowance.name, allowance.kind)
    return None
