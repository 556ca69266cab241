"""Storing tasks, with what some of them bring along: a first concurrency key, a budget, a unique key, a map at once.

A task without any of these costs no more than its rows (``relaymesh.store.submit``).
"""

from __future__ import annotations

from collections.abc import Sequence

from relaymesh.errors import RootError
from relaymesh.store import control
from relaymesh.store.database import Database
from relaymesh.store.finish import finish_tasks
from relaymesh.store.release import spread_roots
from relaymesh.store.root_state import RootState
from relaymesh.store.submit import insert_tasks
from relaymesh.wire.store import NewTask

__all__ = ["Submitter"]


class Submitter:
    """Stores the tasks of one store; each method is called within a write transaction."""

    def __init__(self, database: Database, state: RootState) -> None:
        self._database = database
        self._state = state

    def submit(self, tasks: Sequence[NewTask], now_ms: int) -> list[tuple[str, bool]]:
        """Store tasks; return ``(task_id, deduplicated)`` for each."""
        self.expect_keys(tasks, now_ms)
        if any(task.unique is not None for task in tasks):
            results = self._submit_unique(tasks, now_ms)
        else:
            results = self.insert(tasks, now_ms)
        if any(task.budget for task in tasks):
            self._store_budgets(tasks, results, now_ms)
        spread = [
            task.task_id
            for task, (_, deduplicated) in zip(tasks, results, strict=True)
            if not deduplicated and any(step.map_template is not None and step.waiting_on == 1 for step in task.steps)
        ]
        if spread:
            database = self._database
            settled = spread_roots(database.conn, spread, now_ms=now_ms, payloads=database.payloads)
            finish_tasks(database.conn, settled, now_ms)
        return results

    def insert(self, tasks: Sequence[NewTask], now_ms: int) -> list[tuple[str, bool]]:
        """Store tasks that bring nothing along."""
        database = self._database
        return insert_tasks(
            database.conn, tasks, namespace=database.namespace, now_ms=now_ms, key_age_ms=self.key_age_ms
        )

    def key_age_ms(self) -> int:
        """Return how long the key of a task that has ended is held, as the settings say now."""
        from relaymesh.core.retention import KEEP
        from relaymesh.settings import load_settings

        try:
            return load_settings(self._database.root).idempotency_key_retention_ms
        except RootError:
            return KEEP  # rather a duplicate that is refused than a task that runs twice

    def expect_keys(self, tasks: Sequence[NewTask], now_ms: int) -> None:
        """Let claims look for keys from now on, when one of these has the first."""
        keyed = any(step.concurrency_key is not None for task in tasks for step in task.steps)
        if keyed and not self._state.read().rules.keyed:
            control.expect_keys(self._database.conn, now_ms=now_ms)
            self._state.forget()

    def _store_budgets(self, tasks: Sequence[NewTask], results: Sequence[tuple[str, bool]], now_ms: int) -> None:
        """Store the budgets of new tasks, and let claims look for such from now on, when these have the first."""
        from relaymesh.store import budget_rows

        budgets = self._state.read().rules.budgets  # before there is one of these, which others have not heard of
        budget_rows.store_task_budgets(self._database.conn, tasks, results, now_ms=now_ms)
        if budgets is None or not budgets.tasks:
            control.tell_rules(self._database.conn, now_ms)
            self._state.forget()

    def _submit_unique(self, tasks: Sequence[NewTask], now_ms: int) -> list[tuple[str, bool]]:
        from relaymesh.store.unique import submit_unique

        return submit_unique(self._database.conn, tasks, lambda some: self.insert(some, now_ms), now_ms=now_ms)
