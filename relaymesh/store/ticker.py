"""Making tasks out of the ticks of schedules, for one store. A root without schedules loads none of what that needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaymesh.core.ident import Ids
from relaymesh.store import schedule_due
from relaymesh.store.database import Database
from relaymesh.store.submitter import Submitter

if TYPE_CHECKING:
    from relaymesh.store.schedule_fire import Fired, Press

__all__ = ["Ticker"]


class Ticker:
    """The ticks of one store; each method is called within a write transaction."""

    def __init__(self, database: Database, submitter: Submitter) -> None:
        self._database = database
        self._submitter = submitter
        self._ids: Ids | None = None
        self._ids_ms = 0

    def press(self, now_ms: int) -> Press:
        """Return what makes tasks out of ticks in this transaction."""
        from relaymesh.store.schedule_fire import Press

        database, submitter = self._database, self._submitter
        self._ids_ms = now_ms
        if self._ids is None:
            self._ids = Ids(lambda: self._ids_ms, database.rng)
        return Press(database.conn, self._ids, database.payloads, lambda tasks: submitter.submit(tasks, now_ms), now_ms)

    def fire_due(self, now_ms: int) -> list[Fired]:
        """Make the ticks of schedules that are due; return what became of each."""
        due_ms = schedule_due.next_due_ms(self._database.conn)
        if due_ms is None or due_ms > now_ms:
            return []
        from relaymesh.store.schedule_count import count_fired
        from relaymesh.store.schedule_fire import fire_due

        fired = fire_due(self.press(now_ms))
        count_fired(self._database.conn, fired, now_ms=now_ms)
        return fired
