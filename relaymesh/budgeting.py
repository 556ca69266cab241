"""What can be asked of the budgets of a root; ``Client.budgets`` is one of these.

    set, remove     one transaction and one audit record each; every process goes by it from its next claim on
    list            what may be spent, what was, and what is left

What a budget does is decided in ``relaymesh.core.budget``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from relaymesh.argument import check_text, check_text_or_none
from relaymesh.core.budget import Budget, BudgetScope, left, settled, turns_in_ms
from relaymesh.core.budget_text import (
    BudgetTextError,
    amount_text,
    kind_of,
    micros_of,
    owner_of,
    period_of,
    period_text,
)
from relaymesh.core.nearest import quoted
from relaymesh.rule_view import BudgetOutcome, BudgetView
from relaymesh.store.budget_rows import budget_rows, remove_budget, set_budget
from relaymesh.submission import BadBudgetError

if TYPE_CHECKING:
    from relaymesh.door.base import Door
    from relaymesh.store.budget import Row
    from relaymesh.store.store import Store

__all__ = ["Budgets"]


class Budgets:
    """The budgets of one root, by the client that opened it."""

    def __init__(self, client: Door) -> None:
        self._client = client

    def set(
        self, scope: str, name: str, kind: str, amount: int | float | str | Decimal, *, per: str | None = None
    ) -> BudgetOutcome:
        """Set a budget, or change it; it counts from now on.

        scope, name: ``agent``, ``key`` or ``task``, and which one. kind: ``wall_seconds``, ``cpu_seconds``, or
        ``units:NAME`` for what agents report. per: a period such as ``1h`` or ``1d``, for agents and keys; without it
        the amount is for good. What was spent stays when only the amount changes; another period begins with nothing
        spent.

        Raises:
            BadBudgetError, TooManyRulesError: nothing was changed.
        """
        owner, kind = _what(scope, name, kind)
        check_text_or_none("per", per)
        try:
            period_ms = None if per is None else period_of(per)
            budget = Budget(micros_of(amount, f"the budget for {kind}"), period_ms)
        except BudgetTextError as error:
            raise BadBudgetError(str(error)) from None
        if owner[0] is BudgetScope.TASK and period_ms is not None:
            raise BadBudgetError("the budget of a task is for the whole of it: leave the period out")
        client = self._client
        store = client._writable()
        with store.write():
            if owner[0] is BudgetScope.TASK:
                _require_task(store, name)
            row = set_budget(store.conn, *owner, kind, budget, now_ms=client._now_ms())
        return self._changed("budget.set", row.scope, row.name, kind, budget, "set")

    def remove(self, scope: str, name: str, kind: str) -> BudgetOutcome:
        """Remove a budget, and what was spent of it.

        Raises:
            BadBudgetError: nothing was changed.
        """
        owner, kind = _what(scope, name, kind)
        client = self._client
        store = client._writable(create=False)
        with store.write():
            removed = remove_budget(store.conn, *owner, kind, now_ms=client._now_ms())
        return self._changed("budget.remove", *owner, kind, None, "removed" if removed else "not_found")

    def list(self, scope: str | None = None, name: str | None = None) -> list[BudgetView]:
        """Return budgets by scope, name and kind, those of agents first, 1,000 at most. scope, name: only these.

        Raises:
            BadBudgetError: there is no such scope.
        """
        check_text_or_none("scope", scope)
        check_text_or_none("name", name)
        try:
            its = None if scope is None else owner_of(scope, name or "any")[0]
        except BudgetTextError as error:
            raise BadBudgetError(str(error)) from None
        client = self._client
        store = client._readable()
        with store.reading():
            rows = budget_rows(store.conn, its, name)
        now_ms = client._now_ms()
        return [_view(row, now_ms) for row in rows]

    def _changed(
        self, action: str, scope: BudgetScope, name: str, kind: str, budget: Budget | None, message: str
    ) -> BudgetOutcome:
        outcome = BudgetOutcome(
            changed=message != "not_found",
            scope=str(scope),
            name=name,
            kind=kind,
            amount=None if budget is None else amount_text(budget.amount),
            per=None if budget is None or budget.period_ms is None else period_text(budget.period_ms),
            message=message,
        )
        client = self._client
        client._wake()
        details = {"scope": str(scope), "name": name, "kind": kind, "amount": outcome.amount, "per": outcome.per}
        client.audit.record(action, actor=client._actor, resource="runtime/budgets", result=message, details=details)
        return outcome


def _what(scope: str, name: str, kind: str) -> tuple[tuple[BudgetScope, str], str]:
    check_text("scope", scope)
    check_text("name", name)
    check_text("kind", kind)
    try:
        return owner_of(scope, name), kind_of(kind)
    except BudgetTextError as error:
        raise BadBudgetError(str(error)) from None


def _require_task(store: Store, task_id: str) -> None:
    if store.conn.execute("SELECT 1 FROM tasks WHERE task_id=?", (task_id,)).fetchone() is None:
        raise BadBudgetError(f"there is no task {quoted(task_id)}: `relaymesh tasks` lists them; nothing was changed")


def _view(row: Row, now_ms: int) -> BudgetView:
    budget = row.budget
    turns = turns_in_ms(budget, now_ms)
    return BudgetView(
        scope=str(row.scope),
        name=row.name,
        kind=row.kind,
        amount=amount_text(budget.amount),
        per=None if budget.period_ms is None else period_text(budget.period_ms),
        spent=amount_text(settled(budget, row.purse, now_ms).spent),
        left=amount_text(left(budget, row.purse, now_ms)),
        turns_at_ms=None if turns is None else now_ms + turns,
    )
